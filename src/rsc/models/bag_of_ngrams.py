"""A linear classifier on the set of n-grams and words of a text, weighed by tf-idf.

What a TF-IDF table and a logistic regression do, with hashed rows in place of a vocabulary: so it has its
size before any data were seen, is one matrix on every mesh, and holds no text. A text's n-grams and its
words are two vectors of length 1 each: there are ten times as many n-grams, which would drown the words.

Shapes: B texts, L tokens, N places of sequences in a text, R rows, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.config import BagConfig
from rsc.models.ngrams import ngram_rows, word_rows
from rsc.models.stems import first


class Bag(nn.Module):
    """Tokens -> scores of K classes [B, K], float32. Until texts are counted it says the same of each."""

    texts_with: torch.Tensor
    num_texts: torch.Tensor

    def __init__(self, config: BagConfig, *, num_classes: int) -> None:
        super().__init__()
        self.config = config
        num_rows = config.num_tables * config.rows
        self.table = nn.Embedding(num_rows, num_classes)
        self.bias = nn.Parameter(torch.empty(num_classes))
        # Counts are whole numbers, so that no change of number format rounds them.
        self.register_buffer("texts_with", torch.zeros(num_rows, dtype=torch.int64))
        self.register_buffer("num_texts", torch.zeros(1, dtype=torch.int64))

    def forward(self, tokens_BL: torch.Tensor, *, length_B: torch.Tensor) -> torch.Tensor:
        parts = bags_of(tokens_BL, length_B=length_B, config=self.config)
        rows_BN = torch.cat([part.rows for part in parts], dim=1)
        weights_BN = torch.cat([self._weights(part) for part in parts], dim=1)
        table_RK = self.table.weight.float()
        scores_BK = F.embedding_bag(rows_BN, table_RK, per_sample_weights=weights_BN, mode="sum")
        return scores_BK + self.bias.float()

    def _weights(self, part: SequenceRows) -> torch.Tensor:
        """log((1 + texts) / (1 + texts with it)) + 1 (smoothed idf), scaled to length 1 [B, N]."""
        texts_BN = self.texts_with[part.rows]
        idf_BN = ((1 + self.num_texts) / (1 + texts_BN)).log() + 1
        idf_BN = idf_BN * (part.is_first & (texts_BN >= self.config.min_texts))
        return F.normalize(idf_BN, dim=1)


@dataclass(frozen=True)
class SequenceRows:
    """The sequences of one kind in each text, sorted by row; both [B, N]."""

    rows: torch.Tensor
    is_first: torch.Tensor
    """False where the row has stood already, or no sequence ends here: shapes do not depend on the texts."""


def bags_of(tokens_BL: torch.Tensor, *, length_B: torch.Tensor, config: BagConfig) -> list[SequenceRows]:
    """The n-grams, and the words. A text's first token is the separator before it."""
    is_real_BL = first(length_B, of=tokens_BL.shape[1])
    is_real_BL = is_real_BL & (torch.arange(tokens_BL.shape[1], device=tokens_BL.device) > 0)
    parts = []
    if config.ngrams:
        rows_TBL = ngram_rows(tokens_BL, lengths=config.ngrams, rows=config.rows)
        parts.append(_sorted(rows_TBL, is_there_TBL=is_real_BL.expand_as(rows_TBL)))
    if config.words:
        rows_TBL, ends_TBL = word_rows(tokens_BL, longest=config.words, rows=config.rows)
        rows_TBL = rows_TBL + len(config.ngrams) * config.rows
        parts.append(_sorted(rows_TBL, is_there_TBL=ends_TBL & is_real_BL))
    return parts


def _sorted(rows_TBL: torch.Tensor, *, is_there_TBL: torch.Tensor) -> SequenceRows:
    rows_BN = rows_TBL.masked_fill(~is_there_TBL, -1).transpose(0, 1).flatten(1).sort(dim=1).values
    is_new_BN = rows_BN != F.pad(rows_BN, (1, 0), value=-1)[:, :-1]
    return SequenceRows(rows_BN.clamp_min(0), is_first=is_new_BN & (rows_BN >= 0))


def count_texts(tokens_BL: torch.Tensor, *, length_B: torch.Tensor, config: BagConfig) -> torch.Tensor:
    """In how many of these texts each row is, int64 [R]."""
    parts = bags_of(tokens_BL, length_B=length_B, config=config)
    rows = torch.cat([part.rows[part.is_first] for part in parts])
    return rows.bincount(minlength=config.num_tables * config.rows)

"""Vectors of token sequences and of words by their hashes, and where words begin and end.

Shapes: B batch, L positions, W words, F features of such a vector, N lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.config import TextConfig


class Ngrams(nn.Module):
    """For each position the summed vectors of the token sequences, and of the words, that end there,
    [B, L] -> [B, L, F]; `blend` brings them to the trunk's width."""

    def __init__(self, config: TextConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        tables = len(config.ngrams) + config.words
        self.embedding = nn.Embedding(config.ngram_rows * tables, config.ngram_width)
        self.blend = nn.Linear(config.ngram_width, width, bias=False)

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        rows, parts = self.config.ngram_rows, []
        if self.config.ngrams:
            rows_NBL = ngram_rows(tokens_BL, lengths=self.config.ngrams, rows=rows)
            parts.append(self.embedding(rows_NBL).sum(0))
        if self.config.words:
            rows_WBL, ends_WBL = word_rows(tokens_BL, longest=self.config.words, rows=rows)
            vectors_WBLF = self.embedding(rows_WBL + len(self.config.ngrams) * rows)
            parts.append((vectors_WBLF * ends_WBL[..., None]).sum(0))
        return torch.stack(parts).sum(0)


def word_numbers(tokens_BL: torch.Tensor) -> torch.Tensor:
    """Number of the word a byte belongs to [B, L]: 0 before the first; what follows a word belongs to it."""
    return _word_starts(tokens_BL).cumsum(1)


def sum_words(values_BLF: torch.Tensor, *, number_BL: torch.Tensor, is_byte_BL: torch.Tensor) -> torch.Tensor:
    """Sum of the vectors of each word's bytes over the root of their number, [B, L, F] -> [B, W, F], W the
    most words of a row and one for what stands before them. Padding counts in nothing."""
    B, _, features = values_BLF.shape
    count = int(number_BL.max()) + 1
    weight_BL = is_byte_BL.to(values_BLF.dtype)
    index_BLF = number_BL[..., None].expand_as(values_BLF)
    summed_BWF = values_BLF.new_zeros(B, count, features)
    summed_BWF = summed_BWF.scatter_add(1, index_BLF, values_BLF * weight_BL[..., None])
    size_BW = weight_BL.new_zeros(B, count).scatter_add(1, number_BL, weight_BL)
    return summed_BWF * size_BW.clamp_min(1).rsqrt()[..., None]


def ngram_rows(tokens_BL: torch.Tensor, *, lengths: Sequence[int], rows: int) -> torch.Tensor:
    """Row of each sequence [len(lengths), B, L]: a polynomial hash modulo 2^64, its high bits."""
    folded_BL = _folded(tokens_BL)
    hash_BL, power, tables = torch.zeros_like(folded_BL), 1, []
    for back in range(max(lengths)):
        shifted_BL = F.pad(folded_BL, (back, 0))[:, : folded_BL.shape[1]]
        hash_BL = hash_BL + shifted_BL * power
        power = _signed(power * _BASE)
        if back + 1 in lengths:
            tables.append(_row_of(hash_BL, rows=rows) + lengths.index(back + 1) * rows)
    return torch.stack(tables)


def word_rows(tokens_BL: torch.Tensor, *, longest: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row of each sequence of 1 to `longest` words by where it ends, and whether one ends there, both
    [longest, B, L]. Words are runs of letters, digits and bytes over 127; what stands between them is not
    looked at.

    A word's hash is a difference of prefix sums of byte * base^place, divided by base^start: an odd base has
    an inverse modulo 2^64.
    """
    B, L = tokens_BL.shape
    is_word_BL, starts_BL = _in_word(tokens_BL), _word_starts(tokens_BL)
    ends_BL = is_word_BL & ~F.pad(is_word_BL, (0, 1))[:, 1:]
    terms_BL = _folded(tokens_BL) * _powers(_BASE, count=L, like=tokens_BL)
    before_BL = F.pad(terms_BL.cumsum(1), (1, 0))
    place_BL = torch.arange(L, device=tokens_BL.device).expand(B, L)
    start_BL = place_BL.where(starts_BL, 0).cummax(1).values
    inverse_L = _powers(pow(_BASE, -1, 1 << 64), count=L, like=tokens_BL)
    word_BL = (before_BL[:, 1:] - before_BL.gather(1, start_BL)) * inverse_L[start_BL]
    previous_BL = F.pad(place_BL.where(ends_BL, -1).cummax(1).values, (1, 0), value=-1)[:, :L]
    hash_BL, ended_BL, tables, masks = word_BL, ends_BL, [], []
    for number in range(longest):
        tables.append(_row_of(hash_BL, rows=rows) + number * rows)
        masks.append(ended_BL)
        back_BL = previous_BL.clamp_min(0)
        ended_BL = ends_BL & (previous_BL >= 0) & ended_BL.gather(1, back_BL)
        hash_BL = word_BL + hash_BL.gather(1, back_BL) * _signed(_MIX)
    return torch.stack(tables), torch.stack(masks)


# Multipliers of 64 bits: Knuth's, and 2^64 over the golden ratio; any odd ones would do.
_BASE, _MIX = 6364136223846793005, 0x9E3779B97F4A7C15


def _folded(tokens_BL: torch.Tensor) -> torch.Tensor:
    """Letters without their case, and nothing that is 0."""
    is_capital_BL = (tokens_BL >= ord("A")) & (tokens_BL <= ord("Z"))
    return tokens_BL + 32 * is_capital_BL + 1


def _in_word(tokens_BL: torch.Tensor) -> torch.Tensor:
    is_letter_BL = ((tokens_BL | 32) >= ord("a")) & ((tokens_BL | 32) <= ord("z"))
    is_digit_BL = (tokens_BL >= ord("0")) & (tokens_BL <= ord("9"))
    return is_letter_BL | is_digit_BL | ((tokens_BL > 127) & (tokens_BL < 256))


def _word_starts(tokens_BL: torch.Tensor) -> torch.Tensor:
    is_word_BL = _in_word(tokens_BL)
    return is_word_BL & ~F.pad(is_word_BL, (1, 0))[:, :-1]


def _powers(base: int, *, count: int, like: torch.Tensor) -> torch.Tensor:
    """1, base, base^2, ... modulo 2^64 [count]."""
    factors = torch.full((count,), _signed(base), dtype=torch.int64, device=like.device)
    factors[:1] = 1
    return factors.cumprod(0)


def _row_of(hash_BL: torch.Tensor, *, rows: int) -> torch.Tensor:
    """High bits of the mixed hash: its low ones repeat."""
    return ((hash_BL * _signed(_MIX)) >> 33) & (rows - 1)


def _signed(number: int) -> int:
    """The same 64 bits as a signed integer, which is what torch multiplies."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number

"""Heads: what the model answers from the trunk's output.

Shapes: B batch, L positions, D width, V padded vocabulary, K classes, U symbols of an answer. A head
makes its own loss, because only in its forward are its sharded weights whole; which batch goes in and
what is done with the sums is decided in train/engine/loss.py. Outputs are plain dicts of tensors, which
FSDP's hooks can see into. An item whose target is IGNORED counts in nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.models.bag_of_ngrams import Bag
from rsc.models.config import BagConfig, HeadConfig
from rsc.models.cross_entropy import IGNORED, linear_cross_entropy, position_losses, real_logits
from rsc.models.sample_random import Purpose, uniforms

Answers = Mapping[str, torch.Tensor]


class Want(enum.Enum):
    """What a forward pass shall give."""

    LOGITS = "logits"
    """`logits`: scores, float32, padding columns -inf; ctc gives `lengths` too."""
    LOSS = "loss"
    """`total`: summed loss, differentiable; `count`: items counted; `correct`: right best guesses."""
    ITEM_LOSSES = "item_losses"
    """`losses`: loss of each item, no gradient; `count`. Token heads only."""


class TokenHead(nn.Module):
    """[B, L, D] -> a distribution over the vocabulary at each position; answers in `targets_BL`."""

    def __init__(self, *, width: int, rows: int, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.vocabulary = vocabulary

    def forward(
        self, hidden_BLD: torch.Tensor, real_BL: torch.Tensor | None, answers: Answers, want: Want
    ) -> dict[str, torch.Tensor]:
        if want is Want.LOGITS:
            return {"logits": real_logits(F.linear(hidden_BLD, self.weight), vocabulary=self.vocabulary)}
        targets_BL = answers["targets_BL"]
        count = (targets_BL != IGNORED).sum()
        if isinstance(self.weight, DTensor):
            return self._loss_of_parts(hidden_BLD, targets_BL) | {"count": count}
        hidden_ND, targets_N = hidden_BLD.flatten(0, 1), targets_BL.flatten()
        if want is Want.ITEM_LOSSES:
            losses_N = position_losses(
                hidden_ND, weight_VD=self.weight, targets_N=targets_N, vocabulary=self.vocabulary
            )
            return {"losses": losses_N.view(targets_BL.shape), "count": count}
        total, correct = linear_cross_entropy(
            hidden_ND, weight_VD=self.weight, targets_N=targets_N, vocabulary=self.vocabulary
        )
        return {"total": total, "count": count, "correct": correct}

    def _loss_of_parts(self, hidden_BLD: torch.Tensor, targets_BL: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensor-parallel way: logits stay split over the vocabulary, under torch's `loss_parallel`."""
        logits_NV = F.linear(hidden_BLD, self.weight).float().flatten(0, 1)
        total = F.cross_entropy(logits_NV, targets_BL.flatten(), ignore_index=IGNORED, reduction="sum")
        return {"total": total}


class ClassHead(nn.Module):
    """Mean over the real positions -> scores of K classes; the answer is `label_B`. With a bag
    (bag_of_ngrams.py) its opinion counts as much as the trunk's."""

    class_counts: torch.Tensor

    def __init__(self, config: HeadConfig, *, width: int, bag: BagConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(width, len(config.labels))
        has_bag = bag is not None and bag.num_tables > 0
        self.bag = Bag(bag, num_classes=len(config.labels)) if bag is not None and has_bag else None
        if config.balance:
            self.register_buffer("class_counts", torch.zeros(len(config.labels), dtype=torch.int64))

    def forward(
        self, hidden_BLD: torch.Tensor, real_BL: torch.Tensor | None, answers: Answers, want: Want
    ) -> dict[str, torch.Tensor]:
        pooled_BD = mean_of_real(hidden_BLD, real_BL)
        if self.training and self.config.dropout:
            drawn_BD = uniforms(answers["draw_B"], pooled_BD.shape[1], purpose=Purpose.DROPOUT)
            pooled_BD = pooled_BD * (drawn_BD >= self.config.dropout) / (1 - self.config.dropout)
        opinions = [self.linear(pooled_BD).float()]
        if self.bag is not None:
            opinions.append(self.bag(answers["tokens_BL"], length_B=answers["text_length_B"]))
        logits_BK = agreed(opinions)
        if want is Want.LOGITS:
            return {"logits": logits_BK}
        return self.judge(logits_BK, answers, taught=opinions if self.training else [logits_BK])

    def judge(
        self, logits_BK: torch.Tensor, answers: Answers, *, taught: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Loss of `taught`: in training of each opinion by itself. One that is taught together with another
        leaves to it what it could say too, and two that erred apart correct each other."""
        label_B = answers["label_B"]
        counted_B = label_B != IGNORED
        losses_B = torch.stack([self._losses(one_BK, label_B) for one_BK in taught]).mean(0)
        correct = ((logits_BK.argmax(-1) == label_B) & counted_B).sum()
        return {"total": losses_B.sum(), "count": counted_B.sum(), "correct": correct}

    def _losses(self, logits_BK: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
        smoothing = self.config.label_smoothing if self.training else 0.0
        facts = {"ignore_index": IGNORED, "label_smoothing": smoothing}
        losses_B = F.cross_entropy(logits_BK, label_B, reduction="none", **facts)  # type: ignore[arg-type]
        return losses_B * self._class_weights[label_B.clamp_min(0)] if self.config.balance else losses_B

    @property
    def _class_weights(self) -> torch.Tensor:
        """(1 / share) ** balance, scaled so that the mean weight of an item is 1; a class that the training
        split has not counts as one item."""
        counts_K = self.class_counts.clamp_min(1).float()
        shares_K = counts_K / counts_K.sum()
        weights_K = shares_K**-self.config.balance
        return weights_K / (weights_K * shares_K).sum()


class MultiLabelHead(ClassHead):
    """As ClassHead, where several classes hold at once; the answer is `labels_BK` of 0 and 1 (-1 in its first
    column: not counted)."""

    def judge(
        self, logits_BK: torch.Tensor, answers: Answers, *, taught: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        labels_BK = answers["labels_BK"]
        counted_B = labels_BK[:, 0] >= 0
        smoothing = self.config.label_smoothing if self.training else 0.0
        targets_BK = labels_BK.clamp_min(0) * (1 - smoothing) + smoothing / 2
        losses_BK = F.binary_cross_entropy_with_logits(logits_BK, targets_BK, reduction="none")
        right_B = ((logits_BK > 0) == (labels_BK > 0)).all(1) & counted_B
        return {
            "total": (losses_BK.mean(1) * counted_B).sum(),
            "count": counted_B.sum(),
            "correct": right_B.sum(),
        }


def agreed(opinions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of the log probabilities of several scores [B, K]; one opinion stands as it is."""
    if len(opinions) == 1:
        return opinions[0]
    return torch.stack([one_BK.log_softmax(-1) for one_BK in opinions]).mean(0)


class CtcHead(nn.Module):
    """[B, L, D] -> a symbol or nothing at each position; symbol 0 is the blank, label i is symbol i + 1.

    The answer is `symbols_BU` with `symbol_count_B`. An utterance too short for its answer has no
    alignment, so it is not counted (and `unaligned` says how many). Loss is nats per utterance.
    """

    def __init__(self, config: HeadConfig, *, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(config.labels) + 1)

    def forward(
        self, hidden_BLD: torch.Tensor, real_BL: torch.Tensor | None, answers: Answers, want: Want
    ) -> dict[str, torch.Tensor]:
        assert real_BL is not None, "the audio stem says which positions are real"
        logits_BLK, lengths_B = self.linear(hidden_BLD).float(), real_BL.sum(1)
        if want is Want.LOGITS:
            return {"logits": logits_BLK, "lengths": lengths_B}
        symbols_BU, num_symbols_B = answers["symbols_BU"], answers["symbol_count_B"]
        wanted_B = num_symbols_B >= 0
        counted_B = wanted_B & (positions_needed(symbols_BU, num_symbols_B) <= lengths_B) & (lengths_B > 0)
        losses_B = F.ctc_loss(
            logits_BLK.log_softmax(-1).transpose(0, 1),
            symbols_BU.clamp_min(0),
            lengths_B,
            num_symbols_B.clamp_min(0),
            reduction="none",
            zero_infinity=True,
        )
        total = torch.where(counted_B, losses_B, 0.0).sum()
        return {"total": total, "count": counted_B.sum(), "unaligned": (wanted_B & ~counted_B).sum()}


def positions_needed(symbols_BU: torch.Tensor, num_symbols_B: torch.Tensor) -> torch.Tensor:
    """Positions an alignment of each answer takes: one per symbol, and a blank between two equal ones."""
    place_U = torch.arange(1, symbols_BU.shape[1], device=symbols_BU.device)
    repeats_BU = (symbols_BU[:, 1:] == symbols_BU[:, :-1]) & (place_U < num_symbols_B[:, None])
    return num_symbols_B + repeats_BU.sum(1)


class Company(nn.Module):
    """The rows [M, P] that rows [B, P] are compared with, and where they stand among them. Has no weights;
    data parallelism puts the rows of all ranks in this place."""

    def forward(self, rows_BP: torch.Tensor) -> tuple[torch.Tensor, int]:
        return rows_BP, 0


class ContrastiveHead(nn.Module):
    """Two sides, each the mean of its positions projected to a unit vector -> similarity of every pair.

    The right partner of row i is column i. Negatives are the samples of one backward pass over all ranks.
    """

    def __init__(self, config: HeadConfig, *, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(width, config.projection, bias=False)
        self.other = nn.Linear(width, config.projection, bias=False)
        self.temperature = nn.Parameter(torch.empty(1))
        self.company = Company()

    def forward(
        self,
        sides: tuple[torch.Tensor, torch.Tensor],
        reals: tuple[torch.Tensor | None, torch.Tensor | None],
        answers: Answers,
        want: Want,
    ) -> dict[str, torch.Tensor]:
        text_BP = F.normalize(self.text(mean_of_real(sides[0], reals[0])).float(), dim=-1)
        other_BP = F.normalize(self.other(mean_of_real(sides[1], reals[1])).float(), dim=-1)
        scale = self.temperature.float().exp().clamp_max(100.0)
        if want is Want.LOGITS:
            return {"logits": scale * text_BP @ other_BP.T}
        (text_MP, first_row), (other_MP, _) = self.company(text_BP), self.company(other_BP)
        partner_B = torch.arange(first_row, first_row + len(text_BP), device=text_BP.device)
        logits_BM = scale * text_BP @ other_MP.T
        both = F.cross_entropy(logits_BM, partner_B, reduction="sum")
        both = both + F.cross_entropy(scale * other_BP @ text_MP.T, partner_B, reduction="sum")
        return {
            "total": both / 2,
            "count": torch.tensor(len(text_BP), device=text_BP.device),
            "correct": (logits_BM.argmax(-1) == partner_B).sum(),
        }


def mean_of_real(hidden_BLD: torch.Tensor, real_BL: torch.Tensor | None) -> torch.Tensor:
    """Mean over positions that hold input [B, D]; over all where none is marked."""
    if real_BL is None:
        return hidden_BLD.mean(1)
    weight_BL1 = real_BL[..., None].to(hidden_BLD.dtype)
    return (hidden_BLD * weight_BL1).sum(1) / weight_BL1.sum(1).clamp_min(1)

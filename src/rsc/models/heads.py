"""Heads: what the model answers from the trunk's output.

Shapes: B batch, L positions, D width, V padded vocabulary. A head makes its own loss, because only in
its forward are its sharded weights whole; which batch goes in and what is done with the sums is
decided in train/objective.py. Outputs are plain dicts of tensors, which FSDP's hooks can see into.
"""

from __future__ import annotations

import enum

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.models.cross_entropy import IGNORED, linear_cross_entropy, position_losses, real_logits


class Want(enum.Enum):
    """What a forward pass shall give."""

    LOGITS = "logits"
    """`logits`: scores, float32, padding columns -inf."""
    LOSS = "loss"
    """`total`: summed loss, differentiable; `count`: items counted; `correct`: right best guesses."""
    ITEM_LOSSES = "item_losses"
    """`losses`: loss of each item, no gradient; `count`."""


class NextTokenHead(nn.Module):
    """[B, L, D] -> a distribution over the vocabulary at each position."""

    def __init__(self, *, width: int, rows: int, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.vocabulary = vocabulary

    def forward(
        self, hidden_BLD: torch.Tensor, targets_BL: torch.Tensor | None, want: Want
    ) -> dict[str, torch.Tensor]:
        if want is Want.LOGITS or targets_BL is None:
            return {"logits": real_logits(F.linear(hidden_BLD, self.weight), vocabulary=self.vocabulary)}
        count = (targets_BL != IGNORED).sum()
        if isinstance(self.weight, DTensor):
            return self._loss_of_parts(hidden_BLD, targets_BL) | {"count": count}
        hidden_ND, targets_N = hidden_BLD.flatten(0, 1), targets_BL.flatten()
        facts = {"weight_VD": self.weight, "targets_N": targets_N}
        if want is Want.ITEM_LOSSES:
            losses_N = position_losses(hidden_ND, **facts, vocabulary=self.vocabulary)
            return {"losses": losses_N.view(targets_BL.shape), "count": count}
        total, correct = linear_cross_entropy(hidden_ND, **facts, vocabulary=self.vocabulary)
        return {"total": total, "count": count, "correct": correct}

    def _loss_of_parts(self, hidden_BLD: torch.Tensor, targets_BL: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensor-parallel way: logits stay split over the vocabulary, under torch's `loss_parallel`."""
        logits_BLV = F.linear(hidden_BLD, self.weight).float()
        total = F.cross_entropy(
            logits_BLV.flatten(0, 1), targets_BL.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return {"total": total}

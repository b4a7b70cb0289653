"""From a batch to a loss record. The record keeps sums and counts, never means, so that ranks and
microbatches can be added up and divided once: loss = sum of totals / sum of counts.

Packed documents: a target that would cross from one document into the next is not counted (the
separator itself is predicted), and with `trunk.documents = "masked"` no position looks across.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from rsc.models.build import Batch
from rsc.models.cross_entropy import IGNORED
from rsc.models.heads import Want

Forward = Callable[[Batch, Want], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class LossRecord:
    """Sums over the items (tokens, samples) of one batch on one rank."""

    total: torch.Tensor
    """Summed loss in nats, float32 scalar, differentiable. Divide by the global count before backward."""
    count: torch.Tensor
    """Items counted, int64 scalar."""
    sums: dict[str, torch.Tensor]
    """Further detached sums to add up over ranks: `correct` (right best guesses) where the head gives it."""


def loss_of(model: Forward, batch: Mapping[str, torch.Tensor]) -> LossRecord:
    """One forward pass of `model` on `batch`."""
    return loss_record(model(prepare(batch), Want.LOSS))


def loss_record(outputs: Mapping[str, torch.Tensor]) -> LossRecord:
    """What a model answered to `Want.LOSS`, as a record."""
    sums = {name: value.detach() for name, value in outputs.items() if name not in ("total", "count")}
    return LossRecord(total=outputs["total"], count=outputs["count"], sums=sums)


def prepare(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's batch: targets that belong to another document than their position are set aside."""
    ready = dict(batch)
    if "targets_BL" in ready and "document_ids_BL" in ready:
        ready["targets_BL"] = within_documents(ready["targets_BL"], document_ids_BL=ready["document_ids_BL"])
    return ready


def within_documents(targets_BL: torch.Tensor, *, document_ids_BL: torch.Tensor) -> torch.Tensor:
    """Set to IGNORED each target whose position is the last of its document in this row.

    The separator belongs to the document it ends, so it is a target; the first token after it is not.
    The last column keeps its target: packing gives it the next token, of the same document or not at all.
    """
    crosses = torch.zeros_like(targets_BL, dtype=torch.bool)
    crosses[:, :-1] = document_ids_BL[:, 1:] != document_ids_BL[:, :-1]
    crosses |= document_ids_BL < 0
    return targets_BL.masked_fill(crosses, IGNORED)

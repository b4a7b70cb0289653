"""From a batch to a loss record. The record keeps sums and counts, never means, so that ranks and
microbatches can be added up and divided once: loss = sum of totals / sum of counts.

Packed documents: with `trunk.documents = "masked"` (the default) no position looks across into another
document, and the only target that lies across is the separator that the loader puts before each
document: predicting it is predicting the end. Cost of the mask, measured on a 2-core AMX machine: 3 %
of attention (16 x 6 heads x 256 positions, forward and backward), under 1 % of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rsc.loader.ragged import RaggedTensor
from rsc.models.build import Model
from rsc.models.heads import Want
from rsc.train.batches.collate import Binder, Bound
from rsc.train.batches.sample_seeds import Draws


@dataclass(frozen=True)
class LossRecord:
    """Sums over the items (tokens, samples) of one batch on one rank."""

    total: torch.Tensor
    """Summed loss in nats, float32 scalar, differentiable. Divide by the global count before backward."""
    count: torch.Tensor
    """Items counted, int64 scalar."""
    sums: dict[str, torch.Tensor]
    """Further detached sums to add up over ranks: `correct` (right best guesses) where the head gives it,
    `bad_*` for samples that could not be used (train/batches/collate.py has the words)."""


class Objective:
    """`objective(batch)` is one forward pass and its record; made once per run."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._binder = Binder(model.config)

    def __call__(
        self, batch: Mapping[str, torch.Tensor | RaggedTensor], *, draws: Draws | None = None
    ) -> LossRecord:
        bound = self.bind(batch, draws=draws)
        return loss_record(self._model(bound.batch, Want.LOSS), bad=bound.bad)

    def bind(self, batch: Mapping[str, torch.Tensor | RaggedTensor], *, draws: Draws | None = None) -> Bound:
        """The model's batch, on the model's device. A packed batch is one already. Training gives `draws`."""
        if "targets_BL" in batch:
            packed = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
            seeds = {} if draws is None else {"draw_B": draws.of(len(batch["targets_BL"]))}
            bound = Bound({**seeds, **packed})
        else:
            bound = self._binder.bind(batch, draws=draws)
        device = next(self._model.parameters()).device
        if device.type != "cpu":
            bound.batch = {name: value.to(device, non_blocking=True) for name, value in bound.batch.items()}
        return bound


def loss_of(
    model: Model, batch: Mapping[str, torch.Tensor | RaggedTensor], *, draws: Draws | None = None
) -> LossRecord:
    """One batch; where there are many, make an `Objective` once."""
    return Objective(model)(batch, draws=draws)


def loss_record(outputs: Mapping[str, torch.Tensor], *, bad: Mapping[str, int] | None = None) -> LossRecord:
    """What a model answered to `Want.LOSS`, as a record."""
    sums = {name: value.detach() for name, value in outputs.items() if name not in ("total", "count")}
    sums |= {f"bad_{name}": torch.tensor(count) for name, count in (bad or {}).items() if count}
    return LossRecord(total=outputs["total"], count=outputs["count"], sums=sums)

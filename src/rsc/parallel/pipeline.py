"""Pipeline parallelism: blocks in stages, microbatches in flight, torch's schedules underneath.

    1f1b          one stage per rank, one forward then one backward in the steady state
    interleaved   two stages per rank, half the idle time, twice the messages
    zero_bubble   two stages per rank; gradients of weights are put off into what would be idle time
                  (Qi et al. 2023, arXiv:2401.10241)

Every rank reads the whole batch (ids are small); only hidden states travel. Stage 0 has the stems, the
last one the head and the loss. Losses are sums, so microbatches add up without a factor.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from rsc.models.build import Model
from rsc.models.heads import Want

Schedule = Literal["1f1b", "interleaved", "zero_bubble"]
_SCHEDULES: dict[str, Any] = {
    "1f1b": Schedule1F1B,
    "interleaved": ScheduleInterleaved1F1B,
    "zero_bubble": ScheduleInterleavedZeroBubble,
}


class Stage(nn.Module):
    """A model that has lost the parts of other stages, as a function of one tensor and the batch."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden: torch.Tensor, **batch: torch.Tensor) -> torch.Tensor:
        """Ids in at the first stage, summed loss [1] out at the last; hidden states between."""
        model = self.model
        if model.stems is not None:
            hidden = model.embed(batch)
        hidden = model.run(hidden, batch)
        return hidden if model.head is None else model.answer(hidden, batch, Want.LOSS)["total"].reshape(1)


def cut_stage(model: Model, *, part: set[str]) -> Stage:
    """A pruned copy that holds the named units; copies of a `meta` model are free."""
    return _prune(copy.deepcopy(model), part)


def share_out(units: Sequence[tuple[str, ...]], *, num_stages: int) -> list[set[str]]:
    """Cut the smallest stages into `num_stages` runs of nearly equal length, in order.

    The stems and the head each count as a unit, so the first and last stage get a block less: a head over a
    vocabulary costs about as much as a block.
    """
    bounds = [round(index * len(units) / num_stages) for index in range(num_stages + 1)]
    return [{name for unit in units[start:stop] for name in unit} for start, stop in pairwise(bounds)]


def _prune(model: Model, part: set[str]) -> Stage:
    if "stems" not in part:
        model.stems = None
    if "head" not in part:
        model.head = None
    if "trunk.norm" not in part:
        model.trunk.norm = None
    for number in list(model.trunk.blocks):
        if f"trunk.blocks.{number}" not in part:
            model.trunk.blocks.pop(number)
    return Stage(model)


def stages_of_rank(*, pp_rank: int, pp: int, num_stages: int) -> list[int]:
    """Stage numbers of a rank: every pp-th, so that a microbatch goes round."""
    return list(range(pp_rank, num_stages, pp))


@dataclass(frozen=True)
class PipelineShape:
    """Shape and format of what travels between stages."""

    hidden: tuple[int, ...]
    """[B of a microbatch, L of a rank, D]."""
    dtype: torch.dtype


class Pipeline:
    """The stages of this rank with their schedule; `run` is one backward pass over a batch."""

    def __init__(
        self,
        stages: Mapping[int, Stage],
        *,
        num_stages: int,
        microbatches: int,
        schedule: Schedule,
        shape: PipelineShape,
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> None:
        self._has_first, self._has_last = 0 in stages, num_stages - 1 in stages
        made = [
            PipelineStage(
                stage,
                index,
                num_stages,
                device,
                input_args=_example(shape, is_ids=index == 0),
                output_args=_result(shape, is_loss=index == num_stages - 1),
                group=group,
            )
            for index, stage in stages.items()
        ]
        kind = _SCHEDULES[schedule]
        which = made[0] if schedule == "1f1b" else made
        self._schedule = kind(which, microbatches, loss_fn=_its_own_loss, scale_grads=False)

    def run(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Forward and backward. The summed loss on the rank of the last stage, None elsewhere."""
        losses: list[torch.Tensor] = []
        first = (batch["tokens_BL"],) if self._has_first else ()
        target = batch["targets_BL"] if self._has_last else None
        self._schedule.step(*first, target=target, losses=losses, **batch)
        return torch.stack(losses).sum() if self._has_last else None


def _its_own_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return output.sum()


def _example(shape: PipelineShape, *, is_ids: bool) -> tuple[torch.Tensor, ...]:
    if is_ids:
        return (torch.empty(shape.hidden[:2], dtype=torch.int64, device="meta"),)
    return (torch.empty(shape.hidden, dtype=shape.dtype, device="meta", requires_grad=True),)


def _result(shape: PipelineShape, *, is_loss: bool) -> tuple[torch.Tensor, ...]:
    if is_loss:
        return (torch.empty(1, dtype=torch.float32, device="meta"),)
    return (torch.empty(shape.hidden, dtype=shape.dtype, device="meta", requires_grad=True),)

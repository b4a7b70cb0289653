"""Pipeline parallelism: blocks in stages, microbatches in flight, torch's schedules underneath.

    1f1b          one stage per rank, one forward then one backward in the steady state
    interleaved   two stages per rank, half the idle time, twice the messages
    zero_bubble   two stages per rank; gradients of weights are put off into what would be idle time
                  (Qi et al. 2023, arXiv:2401.10241)

Every rank reads the whole batch; only hidden states travel. Stage 0 has the stems, the last one the head
and the loss. Losses are sums, so microbatches add up without a factor.
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
        """Row numbers in at the first stage, [1, 2] of summed loss and count out at the last; hidden states
        between."""
        model = self.model
        if model.stems is not None:
            hidden = model.embed(batch)
        hidden = model.run(hidden, batch)
        if model.head is None:
            return hidden.contiguous()  # gloo sends nothing else
        sums = model.answer(hidden, batch, Want.LOSS)
        # Joined, not stacked and reshaped: FSDP warns where a module returns a view.
        return torch.cat([sums[name].float().reshape(1, 1) for name in ("total", "count")], dim=1)


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
class Hidden:
    """Shape and format of what travels between stages."""

    shape: tuple[int, ...]
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
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> None:
        self._stages, self._num_stages = stages, num_stages
        self.microbatches, self._kind = microbatches, schedule
        self._group, self._device = group, device
        self._has_first, self._has_last = 0 in stages, num_stages - 1 in stages
        self._made: tuple[Hidden, Any] | None = None

    def run(self, batch: Mapping[str, torch.Tensor], *, hidden: Hidden) -> torch.Tensor | None:
        """Forward and backward. [loss, count], both summed, on the rank of the last stage; None elsewhere."""
        rows_B = torch.arange(self.microbatches * hidden.shape[0], device=self._device)
        first = (rows_B,) if self._has_first else ()
        target = rows_B if self._has_last else None  # torch asks for one; the batch holds the answers
        sums = self._schedule(hidden).step(*first, target=target, losses=[], **batch)
        return sums.detach().sum(0) if self._has_last else None

    def evaluate(self, batch: Mapping[str, torch.Tensor], *, hidden: Hidden) -> torch.Tensor | None:
        """As `run`, forward only."""
        rows_B = torch.arange(self.microbatches * hidden.shape[0], device=self._device)
        first = (rows_B,) if self._has_first else ()
        target = rows_B if self._has_last else None
        kept, self._made = self._made, None  # torch prepares a schedule for backward or for none
        sums = self._schedule(hidden).eval(*first, target=target, losses=[], **batch)
        self._made = kept
        return sums.detach().sum(0) if self._has_last else None

    @property
    def stages(self) -> list[Stage]:
        return list(self._stages.values())

    def _schedule(self, hidden: Hidden) -> Any:
        """The schedule for this shape; texts and sounds have another length in each batch."""
        if self._made is None or self._made[0] != hidden:
            made = [
                PipelineStage(
                    stage,
                    index,
                    self._num_stages,
                    self._device,
                    input_args=_given(hidden, is_first=index == 0),
                    output_args=_result(hidden, is_last=index == self._num_stages - 1),
                    group=self._group,
                )
                for index, stage in self._stages.items()
            ]
            which = made[0] if self._kind == "1f1b" else made
            schedule = _SCHEDULES[self._kind](
                which, self.microbatches, loss_fn=_its_own_loss, scale_grads=False
            )
            self._made = hidden, schedule
        return self._made[1]


def _its_own_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return output[:, 0].sum()  # zero bubble detaches it in place, which a view does not allow


def _given(hidden: Hidden, *, is_first: bool) -> tuple[torch.Tensor, ...]:
    if is_first:
        return (torch.empty(hidden.shape[:1], dtype=torch.int64, device="meta"),)
    return (torch.empty(hidden.shape, dtype=hidden.dtype, device="meta", requires_grad=True),)


def _result(hidden: Hidden, *, is_last: bool) -> tuple[torch.Tensor, ...]:
    if is_last:
        return (torch.empty(1, 2, dtype=torch.float32, device="meta", requires_grad=True),)
    return (torch.empty(hidden.shape, dtype=hidden.dtype, device="meta", requires_grad=True),)

"""What one rank of a job holds, computes and sends: sums over the units of its stages.

Closed forms over what dryrun.py counted: no tensors here. Experts are taken as evenly loaded.

Not covered: allocator fragmentation, memory of NCCL and of kernels' workspaces, imbalance of experts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from rsc.parallel.apply import How, frees_weights
from rsc.parallel.layout import Layout, microbatches
from rsc.parallel.pipeline import stages_of_rank
from rsc.plan.dry_run.unit_cost import UnitCost
from rsc.plan.dry_run.weight_memory import MASTER_BYTES, StageReport


@dataclass(frozen=True)
class RankReport:
    """One rank of one pipeline coordinate; ranks of other axes are alike."""

    pp_rank: int
    stages: tuple[int, ...]
    num_parameters: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    gathered_bytes: int
    flops_per_step: float
    sent_bytes_per_step: dict[str, int] = field(default_factory=dict)

    @property
    def peak_bytes(self) -> int:
        held = self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes
        return held + self.activation_bytes + self.gathered_bytes

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "peak_bytes": self.peak_bytes}


@dataclass(frozen=True)
class DryRunJob:
    """What all ranks have in common."""

    layout: Layout
    how: How
    stages: list[StageReport]
    costs: dict[str, UnitCost]
    moments: int
    width: int
    local_length: int
    """Positions of hidden states on a rank."""
    accumulate: int

    def rank_report(self, pp_rank: int) -> RankReport:
        layout, how = self.layout, self.how
        numbers = stages_of_rank(pp_rank=pp_rank, pp=layout.pp, num_stages=len(self.stages))
        own = [self.stages[number] for number in numbers]
        units = sum((Counter(stage.units) for stage in own), Counter[str]())
        count = microbatches(layout, config=how.config, local_batch=how.local_batch)
        parameters = sum(stage.parameter_bytes for stage in own)
        flops, sent = _work(units, self.costs, how=how)
        per_step = Counter({axis: size * count for axis, size in sent.items()})
        per_step.update(_weight_traffic(own, layout=layout, how=how))
        if layout.pp > 1:
            ends = (0 in numbers) + (len(self.stages) - 1 in numbers)
            per_step["pp"] = (2 * len(numbers) - ends) * count * self._hidden_bytes(count)
        return RankReport(
            pp_rank=pp_rank,
            stages=tuple(numbers),
            num_parameters=sum(stage.num_parameters for stage in own),
            parameter_bytes=parameters,
            gradient_bytes=parameters,
            optimizer_bytes=self.moments * parameters,
            activation_bytes=self._activation_bytes(units, pp_rank=pp_rank, count=count),
            gathered_bytes=sum(stage.gathered_bytes for stage in own),
            flops_per_step=flops * count * self.accumulate,
            sent_bytes_per_step={axis: size * self.accumulate for axis, size in per_step.items()},
        )

    def _activation_bytes(self, units: Counter[str], *, pp_rank: int, count: int) -> int:
        """At the fullest moment: what every microbatch in flight keeps, and one unit in backward."""
        layout, how = self.layout, self.how
        held, transient = _activations(units, self.costs, how=how, hidden_bytes=self._hidden_bytes(count))
        per_rank = len(self.stages) // layout.pp
        held = held * in_flight(pp_rank, layout=layout, num_stages=len(self.stages), count=count) // per_rank
        # The last stage goes straight from forward to backward: its logits exist once.
        return held + transient + units["head"] * self.costs["head"].saved_bytes

    def _hidden_bytes(self, count: int) -> int:
        """Hidden states of one of `count` microbatches on a rank."""
        rows = self.how.local_batch // count
        return rows * self.local_length * self.width * self.how.dtype.itemsize


def in_flight(pp_rank: int, *, layout: Layout, num_stages: int, count: int) -> int:
    """Microbatches of one stage whose activations a rank holds at its fullest, all its stages counted.

    1F1B: as many forwards as stages follow, plus its own. Interleaved with v stages per rank: the warm-up of
    2 * (pp - rank - 1) + (v - 1) * pp, plus one (Narayanan et al. 2021, arXiv:2104.04473 section 2.2).
    """
    per_rank = num_stages // layout.pp
    if per_rank == 1:
        return min(count, layout.pp - pp_rank)
    warmup = 2 * (layout.pp - pp_rank - 1) + (per_rank - 1) * layout.pp
    return min(count * per_rank, warmup + 1)


def _activations(
    units: Counter[str], costs: dict[str, UnitCost], *, how: How, hidden_bytes: int
) -> tuple[int, int]:
    """(held per microbatch in flight, needed once while a unit runs backward) in bytes."""
    held, transient = 0, 0
    for kind, count in units.items():
        cost = costs[kind]
        transient = max(transient, cost.passing_bytes)
        if kind == "head":
            continue
        if "block" not in kind or how.recompute == "none":
            held += count * cost.saved_bytes
        else:
            held += count * (hidden_bytes + (cost.kept_bytes if how.recompute == "selective" else 0))
            transient = max(transient, cost.saved_bytes + cost.passing_bytes)
    return held, transient


def _work(units: Counter[str], costs: dict[str, UnitCost], *, how: How) -> tuple[float, Counter[str]]:
    """FLOPs and payload bytes of one microbatch; full recompute does a block's forward again.

    A block sends as much in each pass, so a third pass is half as much again.
    """
    flops, sent = 0.0, Counter[str]()
    for kind, count in units.items():
        cost, again = costs[kind], "block" in kind and how.recompute == "full"
        flops += count * (cost.forward_flops * (1 + again) + cost.backward_flops)
        for axis, size in cost.sent_bytes.items():
            sent[axis] += count * (size + again * size // 2)
    return flops, sent


def _weight_traffic(stages: list[StageReport], *, layout: Layout, how: How) -> dict[str, int]:
    """Payload of FSDP in one backward pass over the batch: gathers of own parts, one sum of gradients."""
    own = sum(stage.num_parameters for stage in stages)
    gathers = 2 if frees_weights(how.config, layout=layout) else 1
    gathered = sum(gathers * stage.gathered_numel[0] + stage.gathered_numel[1] for stage in stages)
    reduced = sum(stage.reduced_numel for stage in stages)
    traffic = {"fsdp": gathered * how.dtype.itemsize + reduced * MASTER_BYTES} if reduced else {}
    if layout.dp_replicate > 1:
        traffic["dp_replicate"] = own * MASTER_BYTES
    return traffic

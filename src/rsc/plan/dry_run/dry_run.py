"""What a rank of a large job would hold, compute and send, found on one small machine.

The sharded model of each distinct pipeline stage is really built, on a process group that talks to nobody
and on `meta`; its weights are counted tensor by tensor. Forward and backward of one unit of each kind
(stems, dense block, expert block, head) run on fake tensors, which have shapes and no memory, while every
matmul, every saved activation and every message is counted; a stage is the sum of its units, a rank that of
its stages (rank_report.py).

Optimiser bytes are a closed form of the weights' local shapes: torch's MemTracker sees global ones under
DTensor. Experts are taken as evenly loaded: routing depends on data, and fake tensors have none.

Not covered: allocator fragmentation, memory of NCCL and of kernels' workspaces, imbalance of experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.parallel.apply import How, cut_weights, frees_weights, place
from rsc.parallel.layout import Layout, microbatches, num_stages
from rsc.parallel.mesh import Mesh, build_mesh
from rsc.parallel.pipeline import cut_stage, share_out
from rsc.plan.dry_run.rank_report import DryRunJob, RankReport
from rsc.plan.dry_run.unit_cost import largest_length, unit_cost
from rsc.plan.dry_run.weight_memory import StageReport, count_weights


@dataclass(frozen=True)
class DryRun:
    layout: Layout
    num_parameters: int
    """Of the whole model."""
    microbatches: int
    ranks: tuple[RankReport, ...]

    def to_json(self) -> dict[str, Any]:
        fullest = max(self.ranks, key=lambda rank: rank.peak_bytes)
        return {
            "layout": str(self.layout),
            "why": self.layout.why,
            "world": self.layout.world,
            "num_parameters": self.num_parameters,
            "microbatches": self.microbatches,
            "peak_bytes": fullest.peak_bytes,
            "fullest_pp_rank": fullest.pp_rank,
            "ranks": [rank.to_json() for rank in self.ranks],
        }


def dry_run(
    config: ModelConfig,
    *,
    layout: Layout,
    how: How,
    moments: int,
    sequence_length: int = 0,
    accumulate: int = 1,
) -> DryRun:
    """Build and count. `moments`: tensors of the weights' size that the optimiser keeps (AdamW: 2).
    `sequence_length`: tokens of a sample, which only packed language asks for.

    Raises what the real start would raise. Needs this process to have no process group yet.
    """
    with fake_group(layout) as mesh:
        model = build_model(config, device="meta")
        parts = share_out(model.placement_plan().stages, num_stages=num_stages(layout, config=how.config))
        stages = _stage_reports(model, parts, mesh=mesh, how=how)
        costs = {
            kind: unit_cost(model, unit, mesh=mesh, how=how, sequence_length=sequence_length)
            for kind, unit in _kinds(config).items()
        }
        job = DryRunJob(
            layout,
            how,
            stages,
            costs,
            moments=moments,
            width=config.trunk.width,
            local_length=largest_length(model, sequence_length=sequence_length, layout=layout),
            accumulate=accumulate,
        )
        ranks = tuple(job.rank_report(pp_rank) for pp_rank in range(layout.pp))
    count = microbatches(layout, config=how.config, local_batch=how.local_batch)
    return DryRun(layout, sum(p.numel() for p in model.parameters()), count, ranks)


@contextmanager
def fake_group(layout: Layout) -> Iterator[Mesh]:
    """Rank 0 of a job that does not exist: every message is taken and none is sent."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.world)
    try:
        yield build_mesh(layout, rank=0, device=torch.device("cpu"), has_experts=True)
    finally:
        dist.destroy_process_group()


def _kinds(config: ModelConfig) -> dict[str, set[str]]:
    """One unit of each kind that the model has."""
    kinds = {"stems": {"stems"}, "head": {"trunk.norm", "head"}}
    for layer in range(config.trunk.num_layers):
        kinds.setdefault(_kind(config, layer), {f"trunk.blocks.{layer}"})
    return kinds


def _kind(config: ModelConfig, layer: int) -> str:
    return "expert_block" if config.trunk.has_experts(layer) else "dense_block"


def _stage_reports(model: Model, parts: list[set[str]], *, mesh: Mesh, how: How) -> list[StageReport]:
    """One report per stage; stages of the same make-up are built once."""
    made: dict[tuple[tuple[str, int], ...], StageReport] = {}
    reports = []
    for part in parts:
        units = Counter(_unit_kinds(model.config, part))
        key = tuple(sorted(units.items()))
        if key not in made:
            stage = cut_stage(model, part=part)
            plan = model.placement_plan()
            place(stage.model, plan=plan, mesh=mesh, how=how)
            cut_weights(stage, stage.model, plan=plan, mesh=mesh, how=how)
            frees = frees_weights(how.config, layout=mesh.layout)
            made[key] = count_weights(stage, units, dtype=how.dtype, frees=frees)
        reports.append(made[key])
    return reports


def _unit_kinds(config: ModelConfig, part: Iterable[str]) -> Iterator[str]:
    for name in part:
        if name.startswith("trunk.blocks."):
            yield _kind(config, int(name.rpartition(".")[2]))
        elif name in ("stems", "head"):
            yield name

"""What a rank of a large job would hold, compute and send, found on one small machine.

The sharded model of each distinct pipeline stage is really built, on a process group that talks to nobody
and on `meta`; its weights are counted tensor by tensor. Forward and backward of one unit of each kind
(stems, dense block, expert block, head) run on fake tensors, which have shapes and no memory, while every
matmul, every saved activation and every message is counted; a stage is the sum of its units.

Optimiser bytes are a closed form of the weights' local shapes: torch's MemTracker sees global ones under
DTensor. Experts are taken as evenly loaded: routing depends on data, and fake tensors have none.

Not covered: allocator fragmentation, memory of NCCL and of kernels' workspaces, imbalance of experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from rsc.models.build import Model, build_model, num_positions
from rsc.models.config import ModelConfig
from rsc.models.cross_entropy import IGNORED
from rsc.models.example import largest_batch
from rsc.parallel.apply import How, cut_weights, frees_weights, place
from rsc.parallel.even import evenly
from rsc.parallel.layout import Layout, microbatches, num_stages
from rsc.parallel.mesh import Mesh, build_mesh
from rsc.parallel.meter import Meter
from rsc.parallel.pipeline import Stage, cut_stage, share_out, stages_of_rank
from rsc.parallel.sequence import ChunkPairs, local_length, split_batch

_MASTER_BYTES = 4  # weights, gradients and moments are float32


@dataclass(frozen=True)
class UnitCost:
    """One microbatch through one unit on one rank, forward and backward, without recompute."""

    forward_flops: float
    backward_flops: float
    saved_bytes: int
    kept_bytes: int
    """Of `saved_bytes`, what selective recompute keeps: results of matrix products and attention."""
    passing_bytes: int
    """Alive at the fullest moment beyond `saved_bytes`: gradients on their way, unsharded ones too."""
    sent_bytes: dict[str, int]
    """Payload that this rank puts into collectives, by axis."""


@dataclass(frozen=True)
class StageReport:
    units: dict[str, int]
    """How many units of each kind."""
    num_parameters: int
    """On this rank."""
    parameter_bytes: int
    gathered_numel: tuple[int, int]
    """This rank's weights that FSDP gathers: of the units, and of the root, which frees nothing between."""
    reduced_numel: int
    """Gradients that this rank gives to FSDP's sums."""
    gathered_bytes: int
    """Gathered weights at one time: two units where they are freed, else all."""


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
            kind: _unit_cost(model, unit, mesh=mesh, how=how, sequence_length=sequence_length)
            for kind, unit in _kinds(config).items()
        }
        job = _Job(
            layout,
            how,
            stages,
            costs,
            moments=moments,
            width=config.trunk.width,
            local_length=_largest_length(model, sequence_length=sequence_length, layout=layout),
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
            made[key] = _count(stage, units, dtype=how.dtype, frees=frees)
        reports.append(made[key])
    return reports


def _unit_kinds(config: ModelConfig, part: Iterable[str]) -> Iterator[str]:
    for name in part:
        if name.startswith("trunk.blocks."):
            yield _kind(config, int(name.rpartition(".")[2]))
        elif name in ("stems", "head"):
            yield name


def _count(stage: Stage, units: Counter[str], *, dtype: torch.dtype, frees: bool) -> StageReport:
    local = [_local_numel(parameter) for parameter in stage.parameters()]
    gathers = [module for module in stage.modules() if isinstance(module, FSDPModule)]
    cut = [_traffic_numel(parameter) for parameter in stage.parameters()]
    sent = sum(size for size, _ in cut)
    root = _own_weights(stage)
    sent_root = sum(_traffic_numel(parameter)[0] for parameter in root)
    whole = sorted(_unsharded_numel(module) for module in gathers) or [sum(local)]  # alone: copies of all
    return StageReport(
        units=dict(units),
        num_parameters=sum(local),
        parameter_bytes=_MASTER_BYTES * sum(local),
        gathered_numel=(sent - sent_root, sent_root),
        reduced_numel=sum(size for _, size in cut),
        gathered_bytes=dtype.itemsize * sum(whole[-2:] if frees else whole),
    )


def _local_numel(parameter: torch.Tensor) -> int:
    return parameter.to_local().numel() if isinstance(parameter, DTensor) else parameter.numel()


def _traffic_numel(parameter: torch.Tensor) -> tuple[int, int]:
    """(what a rank gives to the gather, what it gives to the sum of gradients) of one weight."""
    if not isinstance(parameter, DTensor):
        return 0, 0
    names = parameter.device_mesh.mesh_dim_names or ()
    size = max(parameter.device_mesh.size(axis) for axis, name in enumerate(names) if "fsdp" in name)
    own = parameter.to_local().numel()
    return (own, _gathered_numel(parameter)) if size > 1 else (0, 0)


def _unsharded_numel(module: nn.Module) -> int:
    return sum(_gathered_numel(parameter) for parameter in _own_weights(module))


def _own_weights(module: nn.Module) -> list[nn.Parameter]:
    """Weights that FSDP gathers for this module itself, not for wrapped ones inside it."""
    inner = {
        id(p)
        for child in module.modules()
        if child is not module and isinstance(child, FSDPModule)
        for p in child.parameters()
    }
    return [p for p in module.parameters() if id(p) not in inner]


def _gathered_numel(parameter: torch.Tensor) -> int:
    """Size after FSDP's gather: the whole, less what tensor or expert parallelism cut for good."""
    if not isinstance(parameter, DTensor):
        return parameter.numel()
    names = parameter.device_mesh.mesh_dim_names or ()
    cut = [parameter.device_mesh.size(axis) for axis, name in enumerate(names) if name in ("tp", "ep")]
    numel = parameter.numel()
    for size in cut:
        numel //= size
    return numel


def _largest_part(
    model: Model, *, rows: int, sequence_length: int, layout: Layout
) -> Mapping[str, torch.Tensor]:
    """A microbatch of the longest samples, as a cp rank gets it."""
    batch = largest_batch(model.config, rows=rows, sequence_length=sequence_length)
    if layout.cp == 1 or not model.placement_plan().cuts_batch:
        return batch
    return split_batch(batch, pairs=ChunkPairs(0, layout.cp), parts=layout.tp, ignored=IGNORED)


def _largest_length(model: Model, *, sequence_length: int, layout: Layout) -> int:
    with torch.device("meta"):
        batch = _largest_part(model, rows=1, sequence_length=sequence_length, layout=layout)
    return _local_length(model, batch, layout=layout)


def _local_length(model: Model, batch: Mapping[str, torch.Tensor], *, layout: Layout) -> int:
    whole = num_positions(batch, config=model.config)
    return local_length(whole, plan=model.placement_plan(), cp=layout.cp, tp=layout.tp)


def _unit_cost(model: Model, part: set[str], *, mesh: Mesh, how: How, sequence_length: int) -> UnitCost:
    """Run one unit on fake tensors, without FSDP and recompute: they change no shape inside a unit."""
    stage = cut_stage(model, part=part)
    evenly(stage, mesh=mesh)
    place(stage.model, plan=model.placement_plan(), mesh=mesh, how=replace(how, recompute="none"))
    stage.to(how.dtype).eval()  # random augmentation looks at values, which fake tensors have not
    layout = mesh.layout
    size = how.local_batch // microbatches(layout, config=how.config, local_batch=how.local_batch)
    meter = Meter(mesh)
    with FakeTensorMode(allow_non_fake_inputs=True):
        stage.to_empty(device="cpu")
        batch = _largest_part(model, rows=size, sequence_length=sequence_length, layout=layout)
        given = torch.zeros(
            size,
            _local_length(model, batch, layout=layout),
            model.config.trunk.width,
            dtype=how.dtype,
            requires_grad=True,
        )
        with meter.forward(stage):
            out = stage(given, **batch)
        forward_flops = meter.flops
        with meter.backward():
            out.backward(torch.ones_like(out))
    return UnitCost(
        forward_flops,
        meter.flops - forward_flops,
        meter.saved_bytes,
        meter.kept_bytes,
        max(0, meter.peak_bytes - meter.saved_bytes),
        dict(meter.sent_bytes),
    )


@dataclass(frozen=True)
class _Job:
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
    traffic = {"fsdp": gathered * how.dtype.itemsize + reduced * _MASTER_BYTES} if reduced else {}
    if layout.dp_replicate > 1:
        traffic["dp_replicate"] = own * _MASTER_BYTES
    return traffic

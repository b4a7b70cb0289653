"""`parallelize`: put a plain model on a mesh, axis by axis. The order matters and is the whole file.

pipeline   keep the blocks of this rank's stages
sequence   cut at the trunk's entry, put together at its exit
context    give attention the keys and values of the other sequence parts
company    let a contrastive head see the samples of all ranks
tensor     cut the weights inside a block
experts    cut the experts, and send tokens to them
recompute  forget activations
compile    a block at a time, inside FSDP's hooks
fsdp       cut what is left over the ranks that hold the same block
values     each rank fills its own boxes from (seed, name), so that no mesh changes the start
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rsc.models.build import Model, num_positions
from rsc.models.cross_entropy import IGNORED
from rsc.models.heads import Want
from rsc.models.placement import PlacementPlan
from rsc.parallel.boxes import Box, local_box
from rsc.parallel.config import ParallelConfig
from rsc.parallel.context import split_context
from rsc.parallel.contrastive import share_company
from rsc.parallel.expert import split_experts
from rsc.parallel.float8 import use_float8
from rsc.parallel.fsdp import shard_weights
from rsc.parallel.layout import Layout, microbatches, num_stages
from rsc.parallel.mesh import Mesh
from rsc.parallel.pipeline import Hidden, Pipeline, Stage, cut_stage, share_out, stages_of_rank
from rsc.parallel.recompute import recompute
from rsc.parallel.sequence import ChunkPairs, lay_out_sequence, local_length, split_batch
from rsc.parallel.single import cast_floats, computing_in
from rsc.parallel.tensor import PartialWeights, split_tensors


@dataclass(frozen=True)
class How:
    """What a placement takes from the rest of the recipe."""

    config: ParallelConfig
    dtype: torch.dtype
    float8: bool = False
    """The blocks' matrix products in float8; `dtype` is what is between them."""
    recompute: Literal["none", "selective", "full"] = "none"
    compile_blocks: bool = False
    local_batch: int = 1
    """Samples of one backward pass on one data-parallel rank."""


@dataclass(frozen=True)
class Placed:
    """A model on its mesh, as this rank holds it."""

    mesh: Mesh
    modules: list[Model]
    """The whole model, or this rank's pruned copies, one per pipeline stage; names are those of the whole."""
    pipeline: Pipeline | None
    partial: PartialWeights | None
    plan: PlacementPlan
    dtype: torch.dtype

    def backward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Forward and backward of one bound batch: the head's sums; empty where a pipeline rank sees none."""
        part = self.part_of(batch)
        if self.mesh.layout.world == 1:
            return self._backward_alone(part)
        if self.pipeline is None:
            outputs = self.modules[0](part, Want.LOSS)
            outputs["total"].backward()
            return dict(outputs)
        sums = self.pipeline.run(part, hidden=self.pipeline_hidden(part))
        return {} if sums is None else {"total": sums[0], "count": sums[1].long()}

    def _backward_alone(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with computing_in(self.dtype, model=self.modules[0]):
            outputs = self.modules[0](cast_floats(batch, dtype=self.dtype), Want.LOSS)
            outputs["total"].backward()
        return dict(outputs)

    @torch.no_grad()
    def evaluate(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The head's sums of one bound batch, without backward; weights are left cut as they were."""
        part = self.part_of(batch)
        if self.mesh.layout.world == 1:
            with computing_in(self.dtype, model=self.modules[0]):
                return dict(self.modules[0](cast_floats(part, dtype=self.dtype), Want.LOSS))
        if self.pipeline is None:
            outputs = dict(self.modules[0](part, Want.LOSS))
        else:
            sums = self.pipeline.evaluate(part, hidden=self.pipeline_hidden(part))
            outputs = {} if sums is None else {"total": sums[0], "count": sums[1].long()}
        for module in self._fsdp_modules():
            module.reshard()  # backward would have done it
        return outputs

    def _fsdp_modules(self) -> Iterator[FSDPModule]:
        roots = self.modules if self.pipeline is None else self.pipeline.stages
        for root in roots:
            yield from (module for module in root.modules() if isinstance(module, FSDPModule))

    def part_of(self, batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """What this rank computes of a data-parallel rank's batch."""
        layout = self.mesh.layout
        if layout.cp == 1 or not self.plan.cuts_batch:
            return batch
        pairs = ChunkPairs(rank=self.mesh.place("cp"), size=layout.cp)
        return split_batch(batch, pairs=pairs, parts=layout.tp, ignored=IGNORED)

    def pipeline_hidden(self, part: Mapping[str, torch.Tensor]) -> Hidden:
        """What travels between stages for this batch."""
        assert self.pipeline is not None
        config, layout = self.modules[0].config, self.mesh.layout
        whole = num_positions(part, config=config)
        length = local_length(whole, plan=self.plan, cp=layout.cp, tp=layout.tp)
        rows = len(next(iter(part.values()))) // self.pipeline.microbatches
        return Hidden((rows, length, config.trunk.width), self.dtype)

    def finish_gradients(self) -> None:
        """After the last backward pass of a step."""
        if self.partial is not None:
            self.partial.add_up()


def parallelize(model: Model, *, mesh: Mesh, how: How) -> Placed:
    """Place a model that was built on `meta`; it has no values yet (see `fill`)."""
    plan, layout = model.placement_plan(), mesh.layout
    stages = _own_stages(model, plan=plan, mesh=mesh, config=how.config)
    modules = [stage.model for stage in stages.values()] if layout.pp > 1 else [model]
    roots: Sequence[nn.Module] = list(stages.values()) if layout.pp > 1 else modules
    for root, module in zip(roots, modules, strict=True):
        place(module, plan=plan, mesh=mesh, how=how)
        cut_weights(root, module, plan=plan, mesh=mesh, how=how)
    partial = PartialWeights(modules, plan=plan, group=mesh.group("tp")) if layout.tp > 1 else None
    pipeline = _pipeline(stages, mesh=mesh, how=how) if layout.pp > 1 else None
    return Placed(mesh, modules, pipeline, partial, plan, how.dtype)


def place(model: Model, *, plan: PlacementPlan, mesh: Mesh, how: How) -> None:
    """The axes inside a stage."""
    layout = mesh.layout
    if layout.cp > 1 or layout.tp > 1:
        lay_out_sequence(model, plan=plan, mesh=mesh)
    if layout.cp > 1:
        split_context(model, plan=plan, group=mesh.group("cp"))
    if layout.dp > 1:
        share_company(model, plan=plan, group=mesh.data_group())
    if layout.tp > 1:
        split_tensors(model, plan=plan, mesh=mesh.axis("tp"))
    if layout.ep > 1:
        split_experts(model, plan=plan, mesh=mesh.axis("ep"))
    if how.float8:
        use_float8(model, units=plan.units, device=mesh.device)
    recompute(model, units=plan.units, mode=how.recompute)
    if how.compile_blocks:
        for block in model.trunk.blocks.values():
            block.compile()


def cut_weights(root: nn.Module, model: Model, *, plan: PlacementPlan, mesh: Mesh, how: How) -> None:
    """FSDP on one stage; a process that is alone keeps its weights whole (alone.py)."""
    if mesh.layout.world == 1:
        return
    reshard = frees_weights(how.config, layout=mesh.layout)
    shard_weights(root, model, plan=plan, mesh=mesh, dtype=how.dtype, reshard_after_forward=reshard)


def frees_weights(config: ParallelConfig, *, layout: Layout) -> bool:
    """Whether gathered weights are freed between forward and backward. A pipeline keeps them: it would
    gather them again for every microbatch."""
    return config.reshard_after_forward and layout.pp == 1


def _own_stages(model: Model, *, plan: PlacementPlan, mesh: Mesh, config: ParallelConfig) -> dict[int, Stage]:
    layout = mesh.layout
    if layout.pp == 1:
        return {}
    count = num_stages(layout, config=config)
    parts = share_out(plan.stages, num_stages=count)
    own = stages_of_rank(pp_rank=mesh.place("pp"), pp=layout.pp, num_stages=count)
    return {index: cut_stage(model, part=parts[index]) for index in own}


def _pipeline(stages: dict[int, Stage], *, mesh: Mesh, how: How) -> Pipeline:
    layout = mesh.layout
    return Pipeline(
        stages,
        num_stages=num_stages(layout, config=how.config),
        microbatches=microbatches(layout, config=how.config, local_batch=how.local_batch),
        schedule=how.config.pp_schedule,
        group=mesh.group("pp"),
        device=mesh.device,
    )


@torch.no_grad()
def fill(
    modules: Sequence[nn.Module],
    *,
    device: torch.device,
    initial_value: Callable[[str, torch.Size], torch.Tensor],
) -> None:
    """Allocate what is on `meta` and give each weight its first value; one whole weight extra in memory.

    Buffers start at zero, as `initialise` of models/build.py has them.
    """
    for module in modules:
        module.to_empty(device=device)
        for name, parameter in module.named_parameters():
            whole = initial_value(name, parameter.shape)
            if isinstance(parameter, DTensor):
                box = local_box(parameter)
                everything = Box((0,) * parameter.ndim, tuple(parameter.shape))
                parameter.to_local().copy_(whole[box.within(everything)])
            else:
                parameter.copy_(whole)
        for buffer in module.buffers():
            buffer.zero_()

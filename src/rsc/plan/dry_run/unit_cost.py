"""What one microbatch costs in one unit of a model on a rank: it runs on fake tensors, for the dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rsc.models.build import Model, num_positions
from rsc.models.cross_entropy import IGNORED
from rsc.parallel.apply import How, place
from rsc.parallel.layout import Layout, microbatches
from rsc.parallel.mesh import Mesh
from rsc.parallel.pipeline import cut_stage
from rsc.parallel.sequence import ChunkPairs, local_length, split_batch
from rsc.plan.dry_run.example_batch import largest_batch
from rsc.plan.dry_run.fake_routing import evenly
from rsc.plan.dry_run.op_counter import Meter


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


def _largest_part(
    model: Model, *, rows: int, sequence_length: int, layout: Layout
) -> Mapping[str, torch.Tensor]:
    """A microbatch of the longest samples, as a cp rank gets it."""
    batch = largest_batch(model.config, rows=rows, sequence_length=sequence_length)
    if layout.cp == 1 or not model.placement_plan().cuts_batch:
        return batch
    return split_batch(batch, pairs=ChunkPairs(0, layout.cp), parts=layout.tp, ignored=IGNORED)


def largest_length(model: Model, *, sequence_length: int, layout: Layout) -> int:
    with torch.device("meta"):
        batch = _largest_part(model, rows=1, sequence_length=sequence_length, layout=layout)
    return _local_length(model, batch, layout=layout)


def _local_length(model: Model, batch: Mapping[str, torch.Tensor], *, layout: Layout) -> int:
    whole = num_positions(batch, config=model.config)
    return local_length(whole, plan=model.placement_plan(), cp=layout.cp, tp=layout.tp)


def unit_cost(model: Model, part: set[str], *, mesh: Mesh, how: How, sequence_length: int) -> UnitCost:
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

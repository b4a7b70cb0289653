"""`parallelize`: put a plain model on a mesh, axis by axis. The order matters and is the whole file.

fsdp      cut the weights over the ranks that hold the same block
values    each rank fills its own boxes from (seed, name), so no mesh changes the start
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.models.placement import PlacementPlan
from rsc.parallel.boxes import Box, local_box
from rsc.parallel.config import ParallelConfig
from rsc.parallel.fsdp import shard_weights
from rsc.parallel.mesh import Mesh


class Plannable(Protocol):
    """What `parallelize` asks of a model."""

    def placement_plan(self) -> PlacementPlan: ...

    def initial_value(self, name: str, *, shape: torch.Size, seed: int) -> torch.Tensor: ...


def parallelize(
    model: nn.Module, *, plan: PlacementPlan, mesh: Mesh, config: ParallelConfig, dtype: torch.dtype
) -> list[nn.Module]:
    """Place a model that was built on `meta`. Returns what this rank holds: the model, or its stages."""
    shard_weights(
        model,
        units=plan.units,
        mesh=mesh,
        dtype=dtype,
        reshard_after_forward=config.reshard_after_forward,
    )
    return [model]


@torch.no_grad()
def fill(
    modules: list[nn.Module],
    *,
    device: torch.device,
    initial_value: Callable[[str, torch.Size], torch.Tensor],
) -> None:
    """Allocate what is on `meta` and give each weight its first value; one whole weight extra in memory."""
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

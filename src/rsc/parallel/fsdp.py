"""Data parallelism: weights, gradients and optimiser state in `fsdp` parts (FSDP2, or HSDP with copies).

Each unit's weights are gathered before it runs and freed after; gradients are summed and cut again. We
sum, never average: the loss is a sum over items, divided once by their global count, so any split of a
batch over ranks, microbatches and sequence parts gives the same step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.mesh import Mesh


def shard_weights(
    root: nn.Module,
    model: nn.Module,
    *,
    plan: PlacementPlan,
    mesh: Mesh,
    dtype: torch.dtype,
    reshard_after_forward: bool,
) -> None:
    """Wrap experts, each unit, then the rest, in place. `root` is called; `model` inside it has the names.

    Weights and optimiser state stay float32; `dtype` is what a unit computes in; sums are float32.
    """
    options: dict[str, Any] = {
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
        "reshard_after_forward": reshard_after_forward,
    }
    held = dict(model.named_modules())
    if mesh.experts is not None:
        for name, role in plan.roles.items():
            if role is Role.EXPERTS and name in held:
                fully_shard(held[name], mesh=expert_mesh(mesh), shard_placement_fn=_by_features, **options)
    for name in plan.units:
        if name in held:
            fully_shard(held[name], mesh=weight_mesh(mesh), **options)
    fully_shard(root, mesh=weight_mesh(mesh), **{**options, "reshard_after_forward": False})
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def weight_mesh(mesh: Mesh) -> DeviceMesh:
    """Ranks that share weights; two-dimensional (copies x parts) under HSDP."""
    if mesh.layout.dp_replicate > 1:
        return mesh.dense["dp_replicate", "fsdp"]
    return mesh.dense["fsdp"]


def expert_mesh(mesh: Mesh) -> DeviceMesh:
    """Ranks that hold the same experts and see different tokens."""
    assert mesh.experts is not None
    if mesh.layout.dp_replicate > 1:
        return mesh.experts["expert_replicate", "expert_fsdp"]
    return mesh.experts["expert_fsdp"]


def _by_features(parameter: nn.Parameter) -> Shard:
    """Stacked expert weights are cut by experts already: there may be fewer left than ranks."""
    return Shard(1)

"""Data parallelism: weights, gradients and optimiser state in `fsdp` parts (FSDP2, or HSDP with copies).

Each unit's weights are gathered before it runs and freed after; gradients are summed and cut again. We
sum, never average: the loss is a sum over items, divided once by their global count, so any split of a
batch over ranks, microbatches and sequence parts gives the same step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from rsc.parallel.mesh import Mesh


def shard_weights(
    model: nn.Module, *, units: tuple[str, ...], mesh: Mesh, dtype: torch.dtype, reshard_after_forward: bool
) -> None:
    """Wrap each unit and then the rest, in place.

    Weights and optimiser state stay float32; `dtype` is what a unit computes in; sums are float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    over = weight_mesh(mesh)
    held = dict(model.named_modules())
    for name in units:
        if name in held:
            fully_shard(held[name], mesh=over, mp_policy=policy, reshard_after_forward=reshard_after_forward)
    fully_shard(model, mesh=over, mp_policy=policy, reshard_after_forward=False)
    sum_gradients(model)


def weight_mesh(mesh: Mesh) -> DeviceMesh:
    """Ranks that share weights; two-dimensional (copies x parts) under HSDP."""
    if mesh.layout.dp_replicate > 1:
        return mesh.dense["dp_replicate", "fsdp"]
    return mesh.dense["fsdp"]


def sum_gradients(model: nn.Module) -> None:
    """Replace FSDP's mean over ranks by a sum."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum

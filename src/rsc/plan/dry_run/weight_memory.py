"""What the weights of one pipeline stage weigh on a rank, counted tensor by tensor, for the dry run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rsc.parallel.pipeline import Stage

MASTER_BYTES = 4  # weights, gradients and moments are float32


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


def count_weights(stage: Stage, units: Counter[str], *, dtype: torch.dtype, frees: bool) -> StageReport:
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
        parameter_bytes=MASTER_BYTES * sum(local),
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

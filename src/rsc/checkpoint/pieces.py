"""The state of a rank as named boxes: which part of which whole tensor lies here.

A box is (offset, shape) inside the whole tensor, so a checkpoint does not know the mesh that wrote it:
any other mesh asks for its own boxes and copies what overlaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate


@dataclass(frozen=True)
class Box:
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    def overlap(self, other: Box) -> Box | None:
        """The common part, in whole-tensor coordinates. Scalars overlap always."""
        low = tuple(map(max, self.offset, other.offset))
        ends = zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        high = tuple(min(a + n, b + m) for a, n, b, m in ends)
        if any(start >= stop for start, stop in zip(low, high, strict=True)):
            return None
        return Box(low, tuple(stop - start for start, stop in zip(low, high, strict=True)))

    def within(self, outer: Box) -> tuple[slice, ...]:
        """Index of this box in a tensor that holds `outer`."""
        starts = [mine - theirs for mine, theirs in zip(self.offset, outer.offset, strict=True)]
        return tuple(slice(start, start + n) for start, n in zip(starts, self.shape, strict=True))


@dataclass(frozen=True)
class Piece:
    """One tensor of the state as far as this rank holds it."""

    name: str
    whole: tuple[int, ...]
    box: Box
    tensor: torch.Tensor
    """The local part itself, not a copy: read it to save, write into it to load."""
    is_ours: bool
    """Of the ranks that hold the same box, this one writes it."""


def piece_of(name: str, tensor: torch.Tensor, *, is_writer: bool) -> Piece:
    """A piece of a DTensor, or of a plain tensor, which is whole on this rank.

    `is_writer`: of the ranks that differ only on axes this tensor does not know, this one writes.
    """
    if not isinstance(tensor, DTensor):
        box = Box((0,) * tensor.ndim, tuple(tensor.shape))
        return Piece(name, tuple(tensor.shape), box, tensor.detach(), is_ours=is_writer)
    local = tensor.to_local().detach()
    box = local_box(tensor)
    assert tuple(local.shape) == box.shape, f"{name}: {tuple(local.shape)} is not {box}"
    return Piece(name, tuple(tensor.shape), box, local, is_ours=is_writer and _is_first_copy(tensor))


def local_box(tensor: DTensor) -> Box:
    """Where the local part lies. Each axis cuts what the axes before it left, as torch.chunk cuts.

    FSDP wraps a weight that tensor parallelism cut already: DTensor marks it with a strided shard,
    which is cut last although its axis comes first in the mesh.
    """
    offset, shape = [0] * tensor.ndim, list(tensor.shape)
    for axis in _cutting_order(tensor):
        dim: int = tensor.placements[axis].dim  # type: ignore[attr-defined]  # a shard, strided or not
        count = tensor.device_mesh.size(axis)
        chunk = -(-shape[dim] // count)
        start = min(shape[dim], chunk * _coordinate(tensor.device_mesh, axis))
        offset[dim] += start
        shape[dim] = min(chunk, shape[dim] - start)
    return Box(tuple(offset), tuple(shape))


def _cutting_order(tensor: DTensor) -> list[int]:
    cuts = [axis for axis, placement in enumerate(tensor.placements) if not isinstance(placement, Replicate)]
    return sorted(cuts, key=lambda axis: (hasattr(tensor.placements[axis], "split_factor"), axis))


def _is_first_copy(tensor: DTensor) -> bool:
    return all(
        _coordinate(tensor.device_mesh, axis) == 0
        for axis, placement in enumerate(tensor.placements)
        if isinstance(placement, Replicate)
    )


def _coordinate(mesh: DeviceMesh, axis: int) -> int:
    coordinate = mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the tensor's mesh"
    return coordinate[axis]


def model_tensors(modules: Iterable[nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of parameters and persistent buffers; the stages of a pipeline rank add up."""
    for module in modules:
        transient = {
            f"{prefix}.{name}" if prefix else name
            for prefix, owner in module.named_modules()
            for name in owner._non_persistent_buffers_set
        }
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            if name not in transient:
                yield name, tensor


def state_pieces(
    modules: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    is_writer: Callable[[torch.Tensor], bool],
) -> list[Piece]:
    """Everything this rank holds: `model/<name>` and `optimizer/<name>/<key>`, in a fixed order.

    What an optimiser keeps per weight has the weight's shape and placement, or is one number (a step
    count), which whoever writes the first corner of the weight writes too.
    """
    pieces, by_parameter = [], {}
    for name, tensor in model_tensors(modules):
        piece = piece_of(f"model/{name}", tensor, is_writer=is_writer(tensor))
        pieces.append(piece)
        by_parameter[tensor] = piece
    for parameter, key, value in _optimizer_tensors(optimizers):
        home = by_parameter[parameter]
        name = f"optimizer/{home.name.removeprefix('model/')}/{key}"
        owns_corner = home.is_ours and not any(home.box.offset) and not home.box.is_empty
        writes = owns_corner if value.ndim == 0 else is_writer(parameter)
        pieces.append(piece_of(name, value, is_writer=writes))
    return pieces


def _optimizer_tensors(
    optimizers: Sequence[torch.optim.Optimizer],
) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for key, value in sorted(optimizer.state.get(parameter, {}).items()):
                    yield parameter, key, value

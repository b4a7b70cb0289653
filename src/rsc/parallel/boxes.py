"""Which part of a whole tensor lies on this rank, as a box: (offset, shape) in whole-tensor coordinates."""

from __future__ import annotations

from dataclasses import dataclass

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


def is_first_copy(tensor: DTensor) -> bool:
    """Whether, of the ranks of its mesh that hold the same box, this is the first."""
    return all(
        _coordinate(tensor.device_mesh, axis) == 0
        for axis, placement in enumerate(tensor.placements)
        if isinstance(placement, Replicate)
    )


def _coordinate(mesh: DeviceMesh, axis: int) -> int:
    coordinate = mesh.get_coordinate()
    assert coordinate is not None, "this rank is not in the tensor's mesh"
    return coordinate[axis]

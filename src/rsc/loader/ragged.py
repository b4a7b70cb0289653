"""Variable-length samples of a batch, end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rsc.loader.memory import BatchMemory


@dataclass(frozen=True)
class RaggedTensor:
    """Sample i is `values[offsets[i]:offsets[i + 1]]`; offsets int64 [n + 1], from 0 to `len(values)`."""

    values: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def gathered(
        cls,
        values: torch.Tensor,
        *,
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        memory: BatchMemory | None = None,
    ) -> Self:
        """Copies of `values[starts[i]:stops[i]]`, in `memory` where some is given.

        Copied as memory views: numpy.concatenate of as many slices takes 1.3 times as long.
        """
        offsets = _offsets(stops - starts)
        items = to_numpy(values)
        copied = _room(int(offsets[-1]), items.dtype, memory=memory)
        source, target = items.data, copied.data
        ends = offsets.tolist()
        for start, stop, (begin, end) in zip(starts.tolist(), stops.tolist(), pairwise(ends), strict=True):
            target[begin:end] = source[start:stop]
        return cls(values=torch.from_numpy(copied).view(values.dtype), offsets=torch.from_numpy(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> torch.Tensor:
        """One sample, a view [length]."""
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self.values[start:stop] for start, stop in self.bounds())

    def bounds(self) -> list[tuple[int, int]]:
        """(start, stop) of each sample, as Python integers."""
        return list(pairwise(self.offsets.tolist()))

    def lengths(self) -> torch.Tensor:
        """int64 [n]."""
        return self.offsets.diff()

    def chosen(self, rows: torch.Tensor | slice) -> RaggedTensor:
        """Some of the samples, copied. `rows` int64 [m]."""
        starts, stops = self.offsets[:-1][rows], self.offsets[1:][rows]
        return RaggedTensor.gathered(self.values, starts=starts.numpy(), stops=stops.numpy())

    def to_bytes(self) -> list[bytes]:
        """One `bytes` a sample: one copy. Only for uint8 values."""
        view = self.values.numpy().data
        return [bytes(view[start:stop]) for start, stop in self.bounds()]


def join(parts: Sequence[RaggedTensor], *, memory: BatchMemory) -> RaggedTensor:
    """The samples of all parts, in order: a copy in `memory`."""
    offsets = _offsets(np.concatenate([part.lengths().numpy() for part in parts]))
    values = join_arrays([part.values for part in parts], memory=memory)
    return RaggedTensor(values=values, offsets=torch.from_numpy(offsets))


def join_arrays(parts: Sequence[torch.Tensor], *, memory: BatchMemory) -> torch.Tensor:
    """One after the other along the first dim: a copy in `memory`.

    Not torch.cat: it wakes a pool of threads, whose waiting takes ten times the time of the copy.
    """
    arrays = [to_numpy(part) for part in parts]
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    joined = _room(math.prod(shape), arrays[0].dtype, memory=memory).reshape(shape)
    np.concatenate(arrays, out=joined)
    return torch.from_numpy(joined).view(parts[0].dtype)


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """The same memory; bfloat16, which numpy lacks, as int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _room(num_items: int, dtype: np.dtype[Any], *, memory: BatchMemory | None) -> NDArray[Any]:
    if memory is None:
        return np.empty(num_items, dtype)
    return memory.take(num_items * dtype.itemsize).view(dtype)

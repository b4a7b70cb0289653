"""Variable-length samples of a batch, as views into the window that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class RaggedTensor:
    """Sample i is `values[starts[i]:stops[i]]`. `starts` and `stops` are int64 [n].

    `values` is the whole window, shared by its batches, so nothing is copied per sample. Use `packed()` for
    values that lie end to end, and `to_bytes()` for `bytes`.
    """

    values: torch.Tensor
    starts: torch.Tensor
    stops: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        """One sample, a view [length]."""
        return self.values[int(self.starts[index]) : int(self.stops[index])]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self.values[start:stop] for start, stop in self.bounds())

    def bounds(self) -> list[tuple[int, int]]:
        """(start, stop) of each sample, as Python integers."""
        return list(zip(self.starts.tolist(), self.stops.tolist(), strict=True))

    def lengths(self) -> torch.Tensor:
        """int64 [n]."""
        return self.stops - self.starts

    def packed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(values end to end, offsets int64 [n + 1]): one copy."""
        return _pack([self])

    def to_bytes(self) -> list[bytes]:
        """One `bytes` a sample: one copy. Only for uint8 values."""
        view = self.values.numpy().data
        return [bytes(view[start:stop]) for start, stop in self.bounds()]


def join(parts: list[RaggedTensor]) -> RaggedTensor:
    """Samples of several windows as one: copies them, so it is for the few batches that cross a window."""
    values, offsets = _pack(parts)
    return RaggedTensor(values=values, starts=offsets[:-1], stops=offsets[1:])


def _pack(parts: list[RaggedTensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of all parts end to end, and offsets [n + 1].

    Joined as memory views: numpy.concatenate of as many slices takes 1.4 times as long.
    """
    offsets = np.zeros(sum(map(len, parts)) + 1, np.int64)
    np.cumsum(np.concatenate([part.lengths().numpy() for part in parts]), out=offsets[1:])
    dtype = parts[0].values.dtype
    storage = to_numpy(parts[0].values).dtype
    joined = bytearray().join([sample for part in parts for sample in _samples(part)])
    values = np.ndarray(int(offsets[-1]), storage, buffer=joined)
    return torch.from_numpy(values).view(dtype), torch.from_numpy(offsets)


def _samples(part: RaggedTensor) -> list[memoryview]:
    values = to_numpy(part.values).data
    return [values[start:stop] for start, stop in part.bounds()]


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """The same memory; bfloat16, which numpy lacks, as int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()

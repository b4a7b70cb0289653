"""Variable-length samples of a batch, as views into the window that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


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
        offsets = torch.zeros(len(self) + 1, dtype=torch.int64)
        torch.cumsum(self.lengths(), dim=0, out=offsets[1:])
        if not len(self):
            return self.values[:0], offsets
        dtype = self.values.dtype
        items = self.values.view(torch.int16) if dtype == torch.bfloat16 else self.values  # numpy has no bf16
        values = items.numpy()  # slicing it is five times cheaper than slicing a tensor
        parts = [values[start:stop] for start, stop in self.bounds()]
        return torch.from_numpy(np.concatenate(parts)).view(dtype), offsets

    def to_bytes(self) -> list[bytes]:
        """One `bytes` a sample: one copy. Only for uint8 values."""
        view = self.values.numpy().data
        return [bytes(view[start:stop]) for start, stop in self.bounds()]


def join(parts: list[RaggedTensor]) -> RaggedTensor:
    """Samples of several windows as one: copies them, so it is for the few batches that cross a window."""
    packed = [part.packed() for part in parts]
    values = torch.cat([values for values, _ in packed])
    lengths = torch.cat([offsets.diff() for _, offsets in packed])
    stops = torch.cumsum(lengths, dim=0)
    return RaggedTensor(values=values, starts=stops - lengths, stops=stops)

"""Frames of a split as batches of tensors: for one pass over all of it, without a loader's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from rsc.loader.ragged import RaggedTensor
from rsc.store.format.columns import Columns, Ragged
from rsc.train.batches.collate import Column


def batches_of(
    columns: Iterable[Columns], *, batch_size: int, by_length_of: str | None = None
) -> Iterator[dict[str, Column]]:
    """Frames of a split as batches of tensors, in written order, or within a frame by the length of a field:
    samples of like length need little padding."""
    for frame in columns:
        held = {name: _whole(column) for name, column in frame.items()}
        rows = torch.arange(len(next(iter(held.values()))))
        lengths = held.get(by_length_of or "")
        if isinstance(lengths, RaggedTensor):
            rows = lengths.lengths().argsort(stable=True)
        for chosen in torch.split(rows, batch_size):
            yield {name: _rows(column, chosen) for name, column in held.items()}


def _whole(column: Any) -> Column:
    """All samples of a frame."""
    if isinstance(column, Ragged):
        return RaggedTensor(
            torch.from_numpy(np.array(column.values)), torch.from_numpy(np.array(column.offsets))
        )
    return torch.from_numpy(np.array(column))


def _rows(column: Column, rows: torch.Tensor) -> Column:
    return column.chosen(rows) if isinstance(column, RaggedTensor) else column[rows]

"""Rows that arrive one by one (from archives and shards) gathered into chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from rsc.ingest.readers.source import CHUNK_BYTES, BadRecord, Chunk
from rsc.store.format.schema import Field


@dataclass(frozen=True)
class Row:
    """One record in source order: its values by stored name, or why it is bad."""

    number: int
    values: dict[str, Any] | BadRecord
    size_bytes: int
    notes: Sequence[str] = ()
    """What was changed or left out, in sentences that are counted."""


def chunks(rows: Iterable[Row], *, fields: Sequence[Field], split: str | None = None) -> Iterator[Chunk]:
    """Chunks of about CHUNK_BYTES, all of one split."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row.size_bytes
        if size >= CHUNK_BYTES:
            yield _chunk(batch, fields=fields, split=split, size_bytes=size)
            batch, size = [], 0
    if batch:
        yield _chunk(batch, fields=fields, split=split, size_bytes=size)


def note_chunk(notes: Mapping[str, int]) -> Chunk:
    """A chunk that only says something."""
    return Chunk(columns={}, numbers=np.zeros(0, np.uint64), size_bytes=0, notes=dict(notes))


def _chunk(batch: Sequence[Row], *, fields: Sequence[Field], split: str | None, size_bytes: int) -> Chunk:
    good = [(row.number, row.values) for row in batch if not isinstance(row.values, BadRecord)]
    return Chunk(
        columns={item.name: [values[item.name] for _, values in good] for item in fields},
        numbers=np.array([number for number, _ in good], dtype=np.uint64),
        size_bytes=size_bytes,
        bad=[row.values for row in batch if isinstance(row.values, BadRecord)],
        split=split,
        notes=dict(Counter(chain.from_iterable(row.notes for row in batch))),
    )

"""Columns that are in memory already, or come batch by batch from the caller's own code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import Chunk, Part, Source
from rsc.ingest.readers.tables.arrow import ArrowTables, MemoryTable
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field

Batch: TypeAlias = Mapping[str, Any] | Any
"""Field name -> numpy array [n, ...], Ragged, list of str or bytes; or a pyarrow Table or RecordBatch."""


def open_columns(columns: Batch | Iterable[Batch], *, options: ImportOptions) -> Source:
    """The reader of one batch or of many. Raises DataError for columns of a kind that cannot be stored."""
    if hasattr(columns, "schema"):
        return ArrowTables("arrow", [MemoryTable(columns)], options)
    batches = iter([columns] if isinstance(columns, Mapping) else columns)
    first = next(batches, None)
    if first is None:
        raise DataError("there are no batches to import")
    return ColumnBatches(chain([first], batches), first=first, options=options)


@dataclass
class ColumnBatches(Source):
    """Reader of batches of columns; it can be read once."""

    batches: Iterator[Batch]
    first: Batch
    options: ImportOptions
    kind: str = field(default="columns", init=False)

    def __post_init__(self) -> None:
        names = chosen_names(list(self.first), options=self.options)
        kinds = {name: _kind(self.first[name], name) for name in names}
        texts = [name for name, item in kinds.items() if item.kind == "string"]
        stored = stored_names(names, texts=texts, options=self.options)
        self._fields = {
            name: Field(stored[name], item.kind, item.dtype, item.shape) for name, item in kinds.items()
        }

    def fields(self) -> tuple[Field, ...]:
        return tuple(self._fields.values())

    def files(self) -> list[Path]:
        return []

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """A part is a batch, as the caller made it."""
        first_record = 0
        for number, batch in enumerate(self.batches):
            count = self._count(batch, number=number)
            size = sum(_num_bytes(batch[name]) for name in self._fields)
            yield Part(number, first_record=first_record, size_bytes=size, span=batch)
            first_record += count

    def read(self, part: Part) -> Iterator[Chunk]:
        count = self._count(part.span, number=part.number)
        numbers = np.arange(part.first_record, part.first_record + count, dtype=np.uint64)
        columns = {item.name: part.span[name] for name, item in self._fields.items()}
        yield Chunk(columns=columns, numbers=numbers, size_bytes=part.size_bytes)

    def _count(self, batch: Batch, *, number: int) -> int:
        """Records of a batch. Raises DataError when it has other columns, or columns of unequal length."""
        counts = {name: len(batch[name]) for name in self._fields if name in batch}
        if len(counts) < len(self._fields) or len(set(counts.values())) != 1:
            wanted = ", ".join(self._fields)
            raise DataError(f"batch {number} has columns {counts}, wanted {wanted} of one length")
        return next(iter(counts.values()))


def _kind(column: Any, name: str) -> Field:
    """The field of one column, under a name that does not matter yet."""
    if isinstance(column, Ragged):
        return Field(
            "any", "bytes" if column.values.dtype == np.uint8 else "tokens", column.values.dtype.name
        )
    if isinstance(column, np.ndarray) and column.ndim and column.dtype.kind in "biufc":
        return Field("any", "tensor", column.dtype.name, column.shape[1:])
    if isinstance(column, Sequence) and len(column) and isinstance(column[0], str | bytes):
        return Field("any", "string" if isinstance(column[0], str) else "bytes")
    raise DataError(f"column {name!r} is a {type(column).__name__} that cannot be stored",
                    hint="numpy arrays [n, ...], Ragged, or lists of str or bytes")  # fmt: skip


def _num_bytes(column: Any) -> int:
    if isinstance(column, np.ndarray):
        return column.nbytes
    return column.values.nbytes if isinstance(column, Ragged) else sum(map(len, column))

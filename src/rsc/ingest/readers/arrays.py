"""Columns that are in memory already, or come batch by batch from the caller's own code.

The batches of a list get one type that holds all of them; batches of an iterator get that of the first one,
because they can be read once. A batch that would change in that type, or has another shape, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import Chunk, Part, Source, Values
from rsc.ingest.readers.tables.arrow import ArrowTables
from rsc.ingest.readers.tables.arrow_files import MemoryTable, StreamedTable
from rsc.ingest.readers.tables.arrow_types import import_pyarrow
from rsc.ingest.readers.tables.declared import declared_field
from rsc.ingest.readers.tables.exact_casts import exact_cast, joined_dtype
from rsc.ingest.readers.tables.infer_fields import chosen_names, is_unicode, stored_names
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field

Batch: TypeAlias = Mapping[str, Any] | Any
"""Field name -> numpy array [n, ...], Ragged, list of str or bytes; or a pyarrow Table or RecordBatch."""

Column: TypeAlias = "np.ndarray[Any, Any] | Ragged | list[Any]"


def open_columns(columns: Batch | Iterable[Batch], *, options: ImportOptions) -> Source:
    """The reader of one batch or of many. Raises DataError for columns of a kind that cannot be stored."""
    if hasattr(columns, "schema"):
        return _open_arrow(columns, options=options)
    if isinstance(columns, Mapping):
        columns = [columns]
    batches = iter(columns)
    first = next(batches, None)
    if first is None:
        raise DataError("there are no batches to import")
    if hasattr(first, "schema"):
        return _open_arrow_batches(first, batches, is_list=isinstance(columns, Sequence), options=options)
    if isinstance(columns, Sequence):
        return ColumnBatches(columns, known=columns, options=options)
    known = [first]
    while (
        any(_is_blank(column) for column in known[-1].values()) and (more := next(batches, None)) is not None
    ):
        known.append(more)
    return ColumnBatches(chain(known, batches), known=known, options=options)


def _open_arrow(columns: Any, *, options: ImportOptions) -> Source:
    """A Table or RecordBatch, which can be read again; a RecordBatchReader, which cannot."""
    if hasattr(columns, "read_next_batch"):
        return ArrowTables("arrow", [StreamedTable(iter(columns), columns.schema)], options, is_once=True)
    return ArrowTables("arrow", [MemoryTable(columns)], options)


def _open_arrow_batches(
    first: Any, others: Iterator[Any], *, is_list: bool, options: ImportOptions
) -> Source:
    if is_list:
        arrow = import_pyarrow("pyarrow")
        tables = [
            batch if hasattr(batch, "to_batches") else arrow.Table.from_batches([batch])
            for batch in (first, *others)
        ]
        return ArrowTables("arrow", [MemoryTable(table) for table in tables], options)
    return ArrowTables("arrow", [StreamedTable(chain([first], others), first.schema)], options, is_once=True)


@dataclass
class ColumnBatches(Source):
    """Reader of batches of columns. Those of an iterator can be read once. `known` are the batches that give
    the types."""

    batches: Iterable[Batch]
    known: Sequence[Batch]
    options: ImportOptions
    kind: str = field(default="columns", init=False)

    def __post_init__(self) -> None:
        names = chosen_names(list(self.known[0]), options=self.options)
        for number, batch in enumerate(self.known):
            self._count(batch, number=number, names=names)
        kinds = {name: self._kind(name) for name in names}
        texts = [name for name, item in kinds.items() if item.kind == "string"]
        stored = stored_names(names, texts=texts, options=self.options)
        self._fields = {
            name: Field(stored[name], item.kind, item.dtype, item.shape) for name, item in kinds.items()
        }

    def fields(self) -> tuple[Field, ...]:
        return tuple(self._fields.values())

    @property
    def is_once(self) -> bool:
        return not isinstance(self.batches, Sequence)

    def names(self) -> dict[str, str]:
        return {item.name: name for name, item in self._fields.items() if item.name != name}

    def files(self) -> list[Path]:
        return []

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """A part is a batch, as the caller made it."""
        first_record = 0
        for number, batch in enumerate(self.batches):
            count = self._count(batch, number=number, names=list(self._fields))
            size = sum(_num_bytes(batch[name]) for name in self._fields)
            yield Part(number, first_record=first_record, size_bytes=size, span=batch)
            first_record += count

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for a batch that the types of the first ones do not hold."""
        columns: dict[str, Values] = {
            item.name: _fitted(
                _column(part.span[name], name), item, where=f"batch {part.number}, column {name!r}"
            )
            for name, item in self._fields.items()
        }
        count = len(next(iter(columns.values())))
        numbers = np.arange(part.first_record, part.first_record + count, dtype=np.uint64)
        yield Chunk(columns=columns, numbers=numbers, size_bytes=part.size_bytes)

    def _count(self, batch: Batch, *, number: int, names: Sequence[str]) -> int:
        """Records of a batch. Raises DataError when it has other columns, or columns of unequal length."""
        counts = {name: len(batch[name]) for name in batch}
        wanted = set(self.known[0])
        if set(counts) != wanted or len({counts[name] for name in names}) != 1:
            columns = ", ".join(map(str, self.known[0]))
            raise DataError(f"batch {number} has columns {counts}, wanted {columns} of one length")
        return counts[names[0]]

    def _kind(self, name: str) -> Field:
        """The field that holds the column in all known batches, under a name that does not matter yet."""
        columns = [batch[name] for batch in self.known]
        columns = [column for column in columns if not _is_blank(column)] or columns[:1]
        kinds = [_kind(_column(column, name), name) for column in columns]
        first = kinds[0]
        for item in kinds[1:]:
            if (item.kind, item.shape) != (first.kind, first.shape):
                raise DataError(
                    f"column {name!r} is {_told(first)} in one batch and {_told(item)} in another",
                    hint="make them alike before the import",
                )
        if name in self.options.types:
            return self._declared(first, name)
        if first.kind in ("tensor", "tokens") and len({item.dtype for item in kinds}) > 1:
            arrays = [
                column.values if isinstance(column, Ragged) else np.asarray(column) for column in columns
            ]
            return Field("any", first.kind, joined_dtype(arrays, where=f"column {name!r}").name, first.shape)
        return first

    def _declared(self, found: Field, name: str) -> Field:
        declared = declared_field("any", self.options.types[name])
        if (declared.kind == "tensor") != (
            found.kind in ("tensor", "tokens")
        ) or declared.missing is not None:
            raise ConfigError(
                f"schema.{name}: {_told(found)} cannot become {self.options.types[name]}",
                hint="arrays can be declared int8 to uint64, float64 or bool",
            )
        return Field("any", found.kind, declared.dtype, found.shape)


def _column(column: Any, name: str) -> Column:
    """A column as arrays, Ragged or a list; arrays of text and of dates become lists of text."""
    if isinstance(column, np.ma.MaskedArray):
        raise DataError(
            f"column {name!r} is a masked array, whose masked values would be stored as they are",
            hint="fill it first: column.filled(...), with a number that stands for nothing else",
        )
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "OUSTM":
        if column.dtype.kind == "M" and np.isnat(column).any():
            raise DataError(
                f"column {name!r} holds NaT, which no text stands for", hint="leave those records out"
            )
        return [str(value) for value in column] if column.dtype.kind == "M" else column.tolist()
    if isinstance(column, np.ndarray) and column.dtype.byteorder not in "=|":
        return column.astype(column.dtype.newbyteorder("="))
    return column  # type: ignore[no-any-return]


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


def _fitted(column: Column, item: Field, *, where: str) -> Column:
    """The column in the type of its field, unchanged. Raises DataError where that cannot be."""
    if isinstance(column, Ragged):
        column = _whole_ragged(column, where=where)
        if item.kind == "bytes" and column.values.dtype == np.uint8:
            return column
        if item.kind == "tokens":
            return Ragged(exact_cast(column.values, item.storage, where=where), column.offsets)
    elif isinstance(column, np.ndarray) and item.kind == "tensor":
        if column.shape[1:] != item.shape:
            raise DataError(f"{where} has shape {list(column.shape[1:])}, the first batch {list(item.shape)}",
                            hint="give every batch the same shape")  # fmt: skip
        return exact_cast(column, item.storage, where=where)
    elif isinstance(column, Sequence) and item.kind in ("string", "bytes"):
        return _checked_list(column, item, where=where)
    elif _is_blank(column):
        return np.zeros((0, *item.shape), item.storage)
    raise DataError(f"{where} is a {type(column).__name__}, the first batch has {_told(item)}",
                    hint="give every batch the same kinds of columns")  # fmt: skip


def _whole_ragged(column: Ragged, *, where: str) -> Ragged:
    """A Ragged whose offsets start at 0, as the store keeps it; a slice may start later."""
    offsets, values = np.asarray(column.offsets, np.int64), column.values
    is_rising = len(offsets) > 0 and offsets[0] >= 0 and offsets[-1] <= len(values)
    if not is_rising or bool(np.any(np.diff(offsets) < 0)) or values.ndim != 1:
        raise DataError(f"{where}: offsets must rise from 0 to {len(values)}, the number of values")
    if offsets[0] == 0 and offsets[-1] == len(values):
        return column
    return Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _checked_list(column: Sequence[Any], item: Field, *, where: str) -> list[Any]:
    wanted = str if item.kind == "string" else bytes
    if set(map(type, column)) - {wanted}:
        row = next(row for row, value in enumerate(column) if type(value) is not wanted)
        found = type(column[row]).__name__
        raise DataError(f"{where}, row {row}: {found} in a list of {wanted.__name__}",
                        hint="a list holds one type; an empty text may stand for a missing one")  # fmt: skip
    if wanted is str:
        try:
            "".join(column).encode()
        except UnicodeEncodeError:
            row = next(row for row, text in enumerate(column) if not is_unicode(text))
            raise DataError(
                f"{where}, row {row}: half of a UTF-16 pair, which is no text",
                hint="decode it with errors='replace', or leave the record out",
            ) from None
    return list(column)


def _is_blank(column: Any) -> bool:
    """An empty list, which says nothing of its type."""
    return isinstance(column, Sequence) and not len(column)


def _told(item: Field) -> str:
    return f"{item.kind} {item.dtype} {list(item.shape)}" if item.kind in ("tensor", "tokens") else item.kind


def _num_bytes(column: Any) -> int:
    if isinstance(column, np.ndarray):
        return column.nbytes
    if isinstance(column, Ragged):
        return column.values.nbytes
    return sum(len(value) for value in column if isinstance(value, str | bytes))

"""Samples as columns: an array for each fixed field, `Ragged` for each of variable length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from rsc.errors import DataError
from rsc.store.format.schema import Field, Schema


@dataclass(frozen=True)
class Ragged:
    """Variable-length samples: sample i is `values[offsets[i]:offsets[i + 1]]`; offsets int64 [n + 1]."""

    values: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        """Items of one sample, a view."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def from_list(cls, samples: Sequence[Any], *, dtype: np.dtype[Any]) -> Ragged:
        """Join samples (bytes-like, lists or 1-D arrays)."""
        rows = [_row(sample, dtype=dtype) for sample in samples]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        values = np.concatenate(rows) if rows else np.empty(0, dtype)
        return cls(values=values, offsets=offsets)


Columns: TypeAlias = dict[str, "np.ndarray[Any, Any] | Ragged"]


def columns_from_records(schema: Schema, records: Sequence[Mapping[str, Any]]) -> Columns:
    """Turn samples into columns. Strings may be `str`; tensors anything `np.asarray` takes.

    Raises DataError for a missing or unknown field, or a value that does not fit its dtype and shape.
    """
    names = {field.name for field in schema.fields}
    for number, record in enumerate(records):
        if record.keys() != names:
            raise DataError(f"record {number} has fields {sorted(record)}, the schema has {sorted(names)}")
    return {field.name: _column(field, [record[field.name] for record in records]) for field in schema.fields}


def count_samples(schema: Schema, columns: Columns) -> int:
    """Check columns against the schema and return n. Raises DataError with the field that does not fit."""
    if columns.keys() != {field.name for field in schema.fields}:
        raise DataError(
            f"columns {sorted(columns)} are not the schema's {sorted(f.name for f in schema.fields)}"
        )
    counts = {field.name: _check_column(field, columns[field.name]) for field in schema.fields}
    if len(set(counts.values())) != 1:
        raise DataError(f"columns differ in their number of samples: {counts}")
    return next(iter(counts.values()))


def slice_columns(columns: Columns, start: int, stop: int) -> Columns:
    """Samples [start, stop) of every column, as views (offsets are copied)."""
    return {name: _slice(column, start, stop) for name, column in columns.items()}


def concatenate_columns(parts: Sequence[Columns]) -> Columns:
    """Join samples of several columns dicts of one schema, in order."""
    return {name: _concatenate([part[name] for part in parts]) for name in parts[0]}


def sample_bytes(schema: Schema, columns: Columns) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64 [n]: stored bytes of each sample, without the padding of its frame."""
    sizes = np.full(count_samples(schema, columns), sum(field.row_bytes for field in schema.fields), np.int64)
    for field in schema.fields:
        column = columns[field.name]
        if isinstance(column, Ragged):
            sizes += np.diff(column.offsets) * field.storage.itemsize
    return sizes


def _check_column(field: Field, column: np.ndarray[Any, Any] | Ragged) -> int:
    if isinstance(column, Ragged) != field.is_ragged:
        raise DataError(f"field {field.name} is {field.kind}, got {type(column).__name__}")
    values = column.values if isinstance(column, Ragged) else column
    if values.dtype != field.storage:
        raise DataError(f"field {field.name} holds {field.dtype}, got {values.dtype}")
    if not isinstance(column, Ragged):
        if column.ndim == 0 or column.shape[1:] != field.shape:
            raise DataError(f"field {field.name} has shape [n, {field.shape}], got {column.shape}")
        return len(column)
    offsets = column.offsets
    if (
        len(offsets) == 0
        or offsets[0] != 0
        or offsets[-1] != len(values)
        or bool(np.any(np.diff(offsets) < 0))
    ):
        raise DataError(f"field {field.name}: offsets must rise from 0 to {len(values)}")
    return len(column)


def _column(field: Field, values: list[Any]) -> np.ndarray[Any, Any] | Ragged:
    try:
        if field.is_ragged:
            return Ragged.from_list(values, dtype=field.storage)
        array = np.asarray(values, dtype=field.storage)
        return array.reshape(len(values), *field.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"field {field.name} ({field.kind} {field.dtype} {field.shape}): {error}") from None


def _row(sample: Any, *, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if isinstance(sample, str):
        sample = sample.encode()
    if isinstance(sample, bytes | bytearray | memoryview):
        return np.frombuffer(sample, dtype)
    row = np.asarray(sample, dtype)
    if row.ndim != 1:
        raise ValueError(f"a variable field is 1-D, got {row.ndim} dims")
    return row


def _slice(column: np.ndarray[Any, Any] | Ragged, start: int, stop: int) -> np.ndarray[Any, Any] | Ragged:
    if not isinstance(column, Ragged):
        return column[start:stop]
    offsets = column.offsets[start : stop + 1]
    return Ragged(values=column.values[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])


def _concatenate(columns: Sequence[np.ndarray[Any, Any] | Ragged]) -> np.ndarray[Any, Any] | Ragged:
    if not isinstance(columns[0], Ragged):
        return np.concatenate(columns)  # type: ignore[arg-type]
    ragged = [column for column in columns if isinstance(column, Ragged)]
    shifts = np.cumsum([0] + [len(column.values) for column in ragged[:-1]])
    offsets = [np.zeros(1, np.int64)]
    offsets += [column.offsets[1:] + shift for column, shift in zip(ragged, shifts, strict=True)]
    return Ragged(
        values=np.concatenate([column.values for column in ragged]), offsets=np.concatenate(offsets)
    )

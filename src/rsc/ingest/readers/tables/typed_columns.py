"""Loose columns of a chunk as the store's columns, by selection of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rsc.errors import DataError
from rsc.ingest.readers.source import Values
from rsc.store.format.columns import Columns, Ragged
from rsc.store.format.schema import Field, Schema


def to_store(schema: Schema, columns: Mapping[str, Values]) -> Columns:
    """Columns of one schema, ready to append. Raises DataError naming the field that does not fit."""
    return {field.name: _column(field, columns[field.name]) for field in schema.fields}


def take(columns: Mapping[str, Values], rows: np.ndarray) -> dict[str, Values]:
    """The rows at these positions, in this order."""
    return {name: _take(values, rows) for name, values in columns.items()}


def each(values: Values) -> Iterator[Any]:
    """One entry a record."""
    if isinstance(values, Ragged):
        return map(values.__getitem__, range(len(values)))
    return iter(values)


def _take(values: Values, rows: np.ndarray) -> Values:
    if isinstance(values, np.ndarray):
        chosen: np.ndarray = values[rows]
        return chosen
    return [values[row] for row in rows.tolist()]


def _column(field: Field, values: Values) -> np.ndarray[Any, Any] | Ragged:
    if isinstance(values, Ragged):
        return values
    if field.kind in ("string", "bytes"):
        return join_bytes(values, is_text=field.kind == "string")
    if field.kind == "tokens":
        return Ragged.from_list(list(values), dtype=field.storage)
    try:
        column = np.asarray(values, dtype=field.storage)
        return np.ascontiguousarray(column).reshape(len(values), *field.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"field {field.name} ({field.dtype} {list(field.shape)}): {error}") from None


def join_bytes(values: Sequence[Any] | np.ndarray, *, is_text: bool) -> Ragged:
    """One uint8 row a value. Half-pairs of UTF-16 (JSON can say them, UTF-8 cannot) become `?`."""
    rows = [value.encode(errors="replace") for value in values] if is_text else list(values)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, count=len(rows)), out=offsets[1:])
    return Ragged(values=np.frombuffer(b"".join(rows), np.uint8), offsets=offsets)

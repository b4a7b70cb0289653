"""Samples as columns, and columns as the plaintext of one frame.

A frame holds whole samples, column after column, each part starting at a multiple of 64 bytes (a cache
line, and enough for any SIMD load), so that a fixed tensor column is usable where it was decrypted:

    fixed column:     values [n, *shape]
    variable column:  end offsets u32 [n] in items, then values of all samples one after the other

All numbers are little-endian. The layout follows from the schema, the number of samples and the offsets,
so the frame has no header of its own. docs/format.md has the same in words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from rsc.errors import ConfigError, DataError, IntegrityError

ALIGNMENT = 64
MAX_FRAME_BYTES = 1 << 30  # offsets are u32, and one AES-GCM call takes less than 2^31 bytes

Kind: TypeAlias = Literal["tensor", "tokens", "bytes", "string"]
_KINDS = ("tensor", "tokens", "bytes", "string")
_DTYPES = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4",
    "uint32": "<u4", "int64": "<i8", "uint64": "<u8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
    "complex64": "<c8", "complex128": "<c16",
    "bfloat16": "<u2",  # numpy has no bfloat16: its bit pattern, for torch to view
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_OFFSET_BYTES = 4


@dataclass(frozen=True)
class Field:
    """One field of a sample. `tensor` has a fixed `shape`; `tokens` is 1-D of any length; `bytes` and
    `string` (UTF-8) are uint8 of any length. Raises ConfigError for what the format cannot say."""

    name: str
    kind: Kind
    dtype: str = "uint8"
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise ConfigError(
                f"{self.name!r} is not a field name", hint="letters, digits and _ . - only, up to 64"
            )
        if self.kind not in _KINDS:
            raise ConfigError(f"field {self.name}: kind {self.kind!r} is not one of {', '.join(_KINDS)}")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"field {self.name}: dtype {self.dtype!r} is not one of {', '.join(_DTYPES)}")
        if self.kind in ("bytes", "string") and self.dtype != "uint8":
            raise ConfigError(f"field {self.name}: {self.kind} is always uint8, not {self.dtype}")
        if self.is_ragged and self.shape:
            raise ConfigError(f"field {self.name}: {self.kind} has no shape, got {self.shape}")
        if (
            not all(isinstance(size, int) and size > 0 for size in self.shape)
            or self.row_bytes > MAX_FRAME_BYTES
        ):
            raise ConfigError(
                f"field {self.name}: shape {self.shape} must be sizes above 0, a sample under 1 GiB"
            )

    @property
    def is_ragged(self) -> bool:
        return self.kind != "tensor"

    @cached_property
    def storage(self) -> np.dtype[Any]:
        """How numpy sees one item on disk and in memory."""
        return np.dtype(_DTYPES[self.dtype])

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample of a fixed column; of the offset of a variable one."""
        return _OFFSET_BYTES if self.is_ragged else self.storage.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Schema:
    """The fields of every sample of a split, in stored order. Raises ConfigError for a repeated name."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        names = [field.name for field in self.fields]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"a schema needs fields with different names, got {names}")

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON values, in stored order."""
        return [
            {"name": field.name, "kind": field.kind, "dtype": field.dtype, "shape": list(field.shape)}
            for field in self.fields
        ]

    @classmethod
    def from_dict(cls, fields: list[dict[str, Any]]) -> Schema:
        """Inverse of `to_dict`. Raises ConfigError for anything else."""
        try:
            return cls(tuple(Field(**{**field, "shape": tuple(field["shape"])}) for field in fields))
        except (TypeError, KeyError):
            raise ConfigError(f"not a schema: {json.dumps(fields, default=str)[:200]}") from None


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


def frame_size(schema: Schema, columns: Columns) -> int:
    """Bytes that `encode_frame_into` writes. Raises DataError when columns do not fit the schema."""
    count_samples(schema, columns)
    return sum(_padded(array.nbytes) for array in _parts(schema, columns))


def encode_frame_into(schema: Schema, columns: Columns, buffer: bytearray | memoryview) -> int:
    """Write the frame to the start of `buffer`, one copy of each column; returns `frame_size`.

    Raises DataError where the columns do not fit the schema, or the frame is above 1 GiB.
    """
    size = frame_size(schema, columns)
    if size > MAX_FRAME_BYTES:
        raise DataError(f"a frame of {size} bytes is above the format's limit of {MAX_FRAME_BYTES}")
    target = np.frombuffer(buffer, np.uint8)
    start = 0
    for array in _parts(schema, columns):
        stop = start + array.nbytes
        target[start:stop].view(array.dtype)[...] = array.reshape(-1)
        start += _padded(array.nbytes)
        target[stop:start] = 0
    return size


def frame_in_place(schema: Schema, columns: Columns) -> memoryview | None:
    """The frame where it already lies in memory: one fixed column in C order without padding. Else None.

    Saves the copy of `encode_frame_into`, a tenth of what writing arrays costs.
    """
    (first, *more) = _parts(schema, columns)
    if (
        more
        or not first.flags.c_contiguous
        or not 0 < first.nbytes <= MAX_FRAME_BYTES
        or first.nbytes % ALIGNMENT
    ):
        return None
    return first.reshape(-1).view(np.uint8).data


def encode_frame(schema: Schema, columns: Columns) -> bytearray:
    """`encode_frame_into` a new buffer of the right size."""
    buffer = bytearray(frame_size(schema, columns))
    encode_frame_into(schema, columns, buffer)
    return buffer


def decode_frame(schema: Schema, buffer: bytes | bytearray | memoryview, num_samples: int) -> Columns:
    """Views into `buffer` (offsets are widened to int64, the only copy).

    Raises IntegrityError (outcome `frame`) when the bytes are not exactly one frame of this schema, which
    after authentication means the writer was wrong.
    """
    cursor = _Cursor(np.frombuffer(buffer, np.uint8))
    columns: Columns = {}
    for field in schema.fields:
        if not field.is_ragged:
            values = cursor.take(num_samples * field.row_bytes)
            columns[field.name] = values.view(field.storage).reshape(num_samples, *field.shape)
            continue
        offsets = np.zeros(num_samples + 1, np.int64)
        offsets[1:] = cursor.take(num_samples * _OFFSET_BYTES).view("<u4")
        if num_samples and bool(np.any(offsets[1:] < offsets[:-1])):
            raise IntegrityError(f"field {field.name}: offsets go backwards", outcome="frame")
        values = cursor.take(int(offsets[-1]) * field.storage.itemsize).view(field.storage)
        columns[field.name] = Ragged(values=values, offsets=offsets)
    cursor.finish()
    return columns


def fixed_column_starts(schema: Schema, num_samples: int, *, size_bytes: int) -> dict[str, int]:
    """At which byte of a frame each column begins, for a schema without variable fields.

    Saves decoding frame after frame of one layout. Raises IntegrityError as `decode_frame`.
    """
    starts: dict[str, int] = {}
    end = 0
    for field in schema.fields:
        assert not field.is_ragged, "where a column begins depends on the values of those before it"
        starts[field.name] = end
        end += _padded(num_samples * field.row_bytes)
    if end != size_bytes:
        raise IntegrityError(f"frame has {size_bytes} bytes, its columns {end}", outcome="frame")
    return starts


class _Cursor:
    """Walks the padded parts of a frame."""

    def __init__(self, data: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._data = data
        self._start = 0

    def take(self, size: int) -> np.ndarray[Any, Any]:
        start, stop = self._start, self._start + size
        if stop > len(self._data):
            raise IntegrityError(f"frame of {len(self._data)} bytes ends inside a column", outcome="frame")
        self._start += _padded(size)
        return self._data[start:stop]

    def finish(self) -> None:
        if self._start != len(self._data):
            raise IntegrityError(
                f"frame has {len(self._data)} bytes, its columns {self._start}", outcome="frame"
            )


def _parts(schema: Schema, columns: Columns) -> Iterator[np.ndarray[Any, Any]]:
    for field in schema.fields:
        column = columns[field.name]
        if isinstance(column, Ragged):
            yield column.offsets[1:].astype("<u4")
            yield column.values
        else:
            yield column


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


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

"""Columns as the plaintext of one frame.

A frame holds whole samples, column after column, each part starting at a multiple of 64 bytes (a cache
line, and enough for any SIMD load), so that a fixed tensor column is usable where it was decrypted:

    fixed column:     values [n, *shape]
    variable column:  end offsets u32 [n] in items, then values of all samples one after the other

All numbers are little-endian. The layout follows from the schema, the number of samples and the offsets,
so the frame has no header of its own. docs/format.md has the same in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rsc.errors import DataError, IntegrityError
from rsc.store.format.columns import Columns, Ragged, count_samples
from rsc.store.format.schema import MAX_FRAME_BYTES, OFFSET_BYTES, Schema

ALIGNMENT = 64


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
        offsets[1:] = cursor.take(num_samples * OFFSET_BYTES).view("<u4")
        if num_samples and bool(np.any(offsets[1:] < offsets[:-1])):
            raise IntegrityError(f"field {field.name}: offsets go backwards", outcome="frame")
        values = cursor.take(int(offsets[-1]) * field.storage.itemsize).view(field.storage)
        columns[field.name] = Ragged(values=values, offsets=offsets)
    cursor.finish()
    return columns


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

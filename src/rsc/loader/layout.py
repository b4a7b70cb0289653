"""Where rows lie in the plaintext of many frames at once: what `decode_frame` says of one, without its calls.

Frames lie in one arena. A fixed column is said by the byte at which it begins in each frame; a variable one
by the bounds of every row, read out of the offsets of all frames by one gather.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsc.errors import IntegrityError
from rsc.loader.order import Int64s
from rsc.store.format.frames import ALIGNMENT
from rsc.store.format.schema import Field, Schema

Bytes = NDArray[np.uint8]


class Bounds(NamedTuple):
    """Row i of all frames is items [starts[i], stops[i]) of the arena. int64 [rows of all frames]."""

    starts: Int64s
    stops: Int64s


class ArenaLayout(NamedTuple):
    """`fixed`: at which byte of the arena each column begins, int64 [frames]. `ragged`: bounds of rows."""

    fixed: dict[str, Int64s]
    ragged: dict[str, Bounds]


def lay_out(
    schema: Schema, arena: Bytes, *, starts: Int64s, sizes: Int64s, num_samples: Int64s
) -> ArenaLayout:
    """Where the columns of the frames at [starts, starts + sizes) of the arena lie.

    Starts are multiples of ALIGNMENT, and every frame has samples. Raises IntegrityError (outcome `frame`)
    as `decode_frame` does, when the bytes are not exactly frames of this schema: after authentication that
    means the writer was wrong.
    """
    layout = ArenaLayout({}, {})
    ends = starts.copy()  # of what has been seen of each frame
    for field in schema.fields:
        column = ends
        ends = column + aligned(num_samples * field.row_bytes)
        _check_inside(ends, starts + sizes)
        if not field.is_ragged:
            layout.fixed[field.name] = column
            continue
        bounds, lengths = _bounds(field, arena, offsets_at=column, values_at=ends, num_samples=num_samples)
        layout.ragged[field.name] = bounds
        ends = ends + aligned(lengths * field.storage.itemsize)
        _check_inside(ends, starts + sizes)
    if np.any(ends != starts + sizes):
        raise IntegrityError("a frame is longer than its columns", outcome="frame")
    return layout


def runs_of(firsts: Int64s, *, counts: Int64s, step: int = 1) -> Int64s:
    """`counts[0]` numbers from `firsts[0]` on, `step` apart, then the next run's: int64 [sum of counts]."""
    before = np.cumsum(counts) - counts
    return np.repeat(firsts - before * step, counts) + np.arange(int(counts.sum()), dtype=np.int64) * step


def aligned(size_bytes: Any) -> Any:
    """Frames and columns start at cache lines, as their readers expect: a size or an array of sizes."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _bounds(
    field: Field, arena: Bytes, *, offsets_at: Int64s, values_at: Int64s, num_samples: Int64s
) -> tuple[Bounds, Int64s]:
    """Bounds of a variable column's rows, and its items in each frame. Stored are the rows' ends, as u32."""
    words = arena[: len(arena) // 4 * 4].view("<u4")
    ends = words[runs_of(offsets_at // 4, counts=num_samples)].astype(np.int64)
    begins = np.empty_like(ends)
    begins[1:] = ends[:-1]
    begins[np.cumsum(num_samples) - num_samples] = 0
    if np.any(ends < begins):
        raise IntegrityError(f"field {field.name}: offsets go backwards", outcome="frame")
    shifts = np.repeat(values_at // field.storage.itemsize, num_samples)
    return Bounds(begins + shifts, ends + shifts), ends[np.cumsum(num_samples) - 1]


def _check_inside(ends: Int64s, limits: Int64s) -> None:
    if np.any(ends > limits):
        raise IntegrityError("a frame ends inside a column", outcome="frame")

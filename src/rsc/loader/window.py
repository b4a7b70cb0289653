"""One window in memory: frames are decrypted into it, and batches are gathered from it.

A frame is decrypted to its place in the window's arena. For a fixed column there is a list that says where
each row of the shuffled window lies; a batch is one gather by a part of that list, into memory of its own. Of
variable columns only starts and stops are shuffled, and a batch is views.

Copying rows to their shuffled places as soon as a frame is decrypted is no cheaper: measured with frames of
256 KiB and windows of 8 MiB, 283 ms a GB instead of 260, because stores to scattered places miss the cache.

Memory of a window is reused as soon as nobody holds a view of it any more: fresh pages would cost more than
the decryption. It is excluded from core dumps.

Not covered: wiping freed window memory; swap (use encrypted swap or none); copies that the user makes.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Piece, Shard
from rsc.loader.order import Int64s
from rsc.store.schema import ALIGNMENT, Columns, Field, Ragged, Schema, decode_frame, slice_columns

Bytes = NDArray[np.uint8]
_TAG_BYTES = 16
_HUGE_PAGE_BYTES = 2 << 20
_ROOM = 1.0625  # arenas differ a little from window to window; growing one means fresh pages


class Held(NamedTuple):
    """Rows [first_row, stop) of a frame in an arena.

    `starts` says at which byte of the arena each fixed column begins. `columns` may lack those when no other
    window needs the rows.
    """

    shard: Shard
    frame: int
    first_row: int
    stop: int
    starts: Mapping[str, int]
    columns: Columns


class FrameJob(NamedTuple):
    """The rows of a piece, or only `rows` of them, go to `places` of the window.

    `arena_start` is where the frame's own bytes go. A frame that goes on in the next window is kept for
    `lane`; one that began in the window before is taken from `kept` instead of read again.
    """

    shard: Shard
    piece: Piece
    places: Int64s
    rows: Int64s | None
    arena_start: int
    lane: int
    kept: Held | None
    is_listed: bool
    """Whether the list of coming reads counts it."""


class FixedColumn:
    """Rows of one size that lie anywhere in the arena; `gather` brings some together."""

    def __init__(self, field: Field, *, arena: Bytes, row_steps: Int64s) -> None:
        """`row_steps` [n] says where row i of the window lies, in `step_bytes`; it may be filled later."""
        self.row_steps = row_steps
        self.row_bytes = field.row_bytes
        self.step_bytes = math.gcd(field.row_bytes, ALIGNMENT)  # columns start at multiples of ALIGNMENT
        self._field = field
        count = max((len(arena) - self.row_bytes) // self.step_bytes + 1, 0)
        # One item a row, so that numpy moves a row by one copy and without the interpreter lock. Items
        # overlap: there is one at every place where a row could begin.
        self._rows = np.ndarray(
            count, np.dtype(f"V{self.row_bytes}"), buffer=arena, strides=(self.step_bytes,)
        )

    def gather(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop) of the window, [n, *shape], in new memory."""
        rows = self._rows[self.row_steps[start:stop]]
        return rows.view(self._field.storage).reshape(stop - start, *self._field.shape)


@dataclass(frozen=True)
class RaggedColumn:
    """Sample i of the window is `values[starts[i]:stops[i]]`, in items."""

    values: NDArray[Any]
    starts: Int64s
    stops: Int64s


class WindowMemory:
    """Reusable memory for one window."""

    def __init__(self) -> None:
        self._blocks: dict[str, Bytes] = {}

    def take(self, name: str, size_bytes: int) -> Bytes:
        """Memory under a name; what was there before is lost. Pages are kept between uses."""
        if name not in self._blocks or len(self._blocks[name]) < size_bytes:
            self._blocks[name] = _allocate(int(size_bytes * _ROOM))
        return self._blocks[name][:size_bytes]

    @property
    def is_free(self) -> bool:
        """Whether no view of the memory is left."""
        return all(sys.getrefcount(self._blocks[name]) <= _OWN_REFERENCES for name in self._blocks)


class Scratch:
    """A thread's own buffer for the ciphertext of a frame, where storage does not show it in place."""

    def __init__(self) -> None:
        self._sealed = bytearray()

    def sealed(self, size: int) -> bytearray:
        """Room for a frame of `size` bytes and its tag."""
        if len(self._sealed) < size + _TAG_BYTES:
            self._sealed = bytearray(size + _TAG_BYTES)
        return self._sealed


class Window:
    """The columns of one window. `fill` may run in several threads over shared jobs."""

    def __init__(
        self,
        schema: Schema,
        *,
        fields: tuple[Field, ...],
        num_rows: int,
        memory: WindowMemory,
        arena_bytes: int,
        is_numbered: bool,
        after_read: Callable[[], None],
    ) -> None:
        """`after_read` is called, from any thread, after each job that is listed."""
        self._after_read = after_read
        self.num_rows = num_rows
        self.numbers = memory.take("#", num_rows * 8).view(np.int64) if is_numbered else None
        self.kept: dict[int, Held] = {}
        self._schema = schema
        self._is_fixed = not any(field.is_ragged for field in schema.fields)
        self._arena = memory.take("", arena_bytes)
        self.columns: dict[str, FixedColumn | RaggedColumn] = {
            field.name: self._column(field, memory=memory) for field in fields
        }

    def fill(self, jobs: Iterable[FrameJob], *, scratch: Scratch) -> None:
        """Do jobs until none is left. Raises IntegrityError where a frame does not authenticate."""
        for job in jobs:
            piece = job.piece
            is_cut = piece.skip + piece.num_rows < piece.stop
            held = self._read(job, scratch=scratch, is_cut=is_cut) if job.kept is None else self._carry(job)
            if job.is_listed:
                self._after_read()
            if is_cut:
                self.kept[job.lane] = held
            self._place(job, held)
            if self.numbers is not None:
                rows = np.arange(piece.num_rows) if job.rows is None else job.rows
                self.numbers[job.places] = job.shard.first_samples[piece.frame] + piece.skip + rows

    def _column(self, field: Field, *, memory: WindowMemory) -> FixedColumn | RaggedColumn:
        if not field.is_ragged:
            row_steps = memory.take(field.name, self.num_rows * 8).view(np.int64)
            return FixedColumn(field, arena=self._arena, row_steps=row_steps)
        bounds = memory.take(field.name, self.num_rows * 16).view(np.int64).reshape(2, self.num_rows)
        values = self._arena[: len(self._arena) // ALIGNMENT * ALIGNMENT].view(field.storage)
        return RaggedColumn(values=values, starts=bounds[0], stops=bounds[1])

    def _read(self, job: FrameJob, *, scratch: Scratch, is_cut: bool) -> Held:
        """Decrypt a frame into the arena. Its columns are cut out only where somebody needs them."""
        shard, frame = job.shard, job.piece.frame
        size, num_samples = shard.plain_bytes[frame], shard.num_samples[frame]
        plain = self._arena[job.arena_start : job.arena_start + size].data
        shard.read_into(frame, plain, scratch=scratch.sealed(size))
        if self._is_fixed and not is_cut:
            starts = shard.column_starts(self._schema, frame=frame)
            return Held(shard, frame, 0, num_samples, _shifted(starts, job.arena_start), {})
        return self._held(shard, frame, 0, num_samples, decode_frame(self._schema, plain, num_samples))

    def _carry(self, job: FrameJob) -> Held:
        """Copy what is still needed of a frame that the window before has read."""
        assert job.kept is not None, "only called for a frame that was kept"
        piece = job.piece
        columns = _copy_into(self._arena[job.arena_start :], _still_needed(job.kept, piece))
        return self._held(job.shard, piece.frame, piece.skip, piece.stop, columns)

    def _held(self, shard: Shard, frame: int, first_row: int, stop: int, columns: Columns) -> Held:
        base = _address(self._arena)
        starts = {
            name: _address(column) - base
            for name, column in columns.items()
            if isinstance(column, np.ndarray)
        }
        return Held(shard, frame, first_row, stop, starts, columns)

    def _place(self, job: FrameJob, held: Held) -> None:
        low = job.piece.skip - held.first_row
        for name, target in self.columns.items():
            if isinstance(target, FixedColumn):
                first = held.starts[name] + low * target.row_bytes
                rows = _count(job.piece.num_rows) if job.rows is None else job.rows
                steps = rows * (target.row_bytes // target.step_bytes) + first // target.step_bytes
                target.row_steps.put(job.places, steps)
            else:
                source = held.columns[name]
                assert isinstance(source, Ragged), "the frame was decoded by the schema of this field"
                selected = slice(low, low + job.piece.num_rows) if job.rows is None else low + job.rows
                _place_bounds(target, source, rows=selected, places=job.places)


def arena_bytes_of(shard: Shard, piece: Piece, *, kept: Held | None) -> int:
    """Room that a frame takes in a window: all of it, or what is still needed of one kept."""
    if kept is None:
        return _aligned(shard.plain_bytes[piece.frame])
    return sum(_aligned(_values(column).nbytes) for column in _still_needed(kept, piece).values())


def _still_needed(kept: Held, piece: Piece) -> Columns:
    return slice_columns(kept.columns, piece.skip - kept.first_row, piece.stop - kept.first_row)


def _copy_into(arena: Bytes, columns: Columns) -> Columns:
    """Columns copied to the start of the arena, one after the other (offsets stay where they are)."""
    copied: Columns = {}
    for name, column in columns.items():
        source = _values(column)
        values = arena[: source.nbytes].view(source.dtype).reshape(source.shape)
        values[...] = source
        copied[name] = Ragged(values=values, offsets=column.offsets) if isinstance(column, Ragged) else values
        arena = arena[_aligned(values.nbytes) :]
    return copied


def _values(column: NDArray[Any] | Ragged) -> NDArray[Any]:
    return column.values if isinstance(column, Ragged) else column


def _shifted(starts: Mapping[str, int], by: int) -> dict[str, int]:
    return {name: start + by for name, start in starts.items()}


@lru_cache(maxsize=16)
def _count(size: int) -> Int64s:
    """The numbers below `size`: nearly every frame of a data set has the same."""
    return np.arange(size, dtype=np.int64)


def _aligned(size_bytes: int) -> int:
    """Frames and columns start at cache lines, as their readers expect."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _place_bounds(target: RaggedColumn, source: Ragged, *, rows: slice | Int64s, places: Int64s) -> None:
    shift = (_address(source.values) - _address(target.values)) // target.values.itemsize
    target.starts[places] = source.offsets[:-1][rows] + shift
    target.stops[places] = source.offsets[1:][rows] + shift


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _allocate(size_bytes: int) -> Bytes:
    """Zeroed private pages, huge ones where the system gives them, left out of core dumps."""
    size_bytes = -(-max(size_bytes, 1) // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES  # else they are not aligned to
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):
        if hasattr(mmap, advice):
            pages.madvise(getattr(mmap, advice))
    return np.frombuffer(pages, np.uint8)


def _count_own_references() -> int:
    """References that `is_free` sees on a block nobody else holds, on this interpreter."""
    blocks = {"": np.empty(1, np.uint8)}
    return next(sys.getrefcount(blocks[name]) for name in blocks)


_OWN_REFERENCES = _count_own_references()

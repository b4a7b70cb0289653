"""One window in memory: frames are decrypted and their samples put where the order wants them.

Fixed columns alone: a frame is decrypted into a small buffer that stays in the core's cache, and its rows
are copied once, each to its shuffled place, so that a batch is a plain slice. With variable columns the
frame is decrypted into the window itself (its arena), and only starts and stops are shuffled.

Memory of a window is reused as soon as nobody holds a view of it any more: fresh pages would cost more than
the decryption. It is excluded from core dumps.

Not covered: wiping freed window memory; swap (use encrypted swap or none); copies that the user makes.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Piece, Shard
from rsc.loader.order import Int64s
from rsc.store.schema import ALIGNMENT, Columns, Field, Ragged, Schema, decode_frame, slice_columns

Bytes = NDArray[np.uint8]
Rows: TypeAlias = "dict[str, NDArray[Any]]"
_TAG_BYTES = 16
_ROOM = 1.25  # arenas differ a little from window to window; growing one means fresh pages


class Kept(NamedTuple):
    """Rows [first_row, stop) of a frame, in the memory of the window before."""

    shard: Shard
    frame: int
    first_row: int
    stop: int
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
    kept: Kept | None


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
    """A thread's own buffers for one frame, small enough to stay in its core's cache."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._plain = bytearray()
        self._rows: dict[int, Rows] = {}
        self.sealed = bytearray()

    def plain(self, size: int) -> memoryview:
        if len(self._plain) < size:
            self._plain = bytearray(size)
            self._rows.clear()
        return memoryview(self._plain)[:size]

    def make_room(self, size: int) -> None:
        """Let `sealed` take a frame of `size` bytes and its tag."""
        if len(self.sealed) < size + _TAG_BYTES:
            self.sealed = bytearray(size + _TAG_BYTES)

    def rows(self, num_samples: int, *, size: int) -> Rows:
        """Where the rows of a frame of fixed fields lie in the buffer: the same for each such frame."""
        if num_samples not in self._rows:
            columns = decode_frame(self._schema, self.plain(size), num_samples)
            self._rows[num_samples] = _rows_of(columns)
        return self._rows[num_samples]


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
    ) -> None:
        self.num_rows = num_rows
        self.numbers = memory.take("#", num_rows * 8).view(np.int64) if is_numbered else None
        self.kept: dict[int, Kept] = {}
        self._schema = schema
        self._arena = memory.take("", arena_bytes) if arena_bytes else None
        self.columns: dict[str, NDArray[Any] | RaggedColumn] = {
            field.name: self._column(field, memory=memory) for field in fields
        }
        self._rows = _rows_of(self.columns) if num_rows else {}

    def fill(self, jobs: Iterable[FrameJob], *, scratch: Scratch) -> None:
        """Do jobs until none is left. Raises IntegrityError where a frame does not authenticate."""
        for job in jobs:
            if self._arena is None:
                self._scatter(job, scratch=scratch)
            else:
                self._place(job, self._bring(job, self._arena, scratch=scratch))
            if self.numbers is not None:
                piece = job.piece
                rows = np.arange(piece.num_rows) if job.rows is None else job.rows
                self.numbers[job.places] = job.shard.first_samples[piece.frame] + piece.skip + rows

    def _column(self, field: Field, *, memory: WindowMemory) -> NDArray[Any] | RaggedColumn:
        if not field.is_ragged:
            values = memory.take(field.name, self.num_rows * field.row_bytes).view(field.storage)
            return values.reshape(self.num_rows, *field.shape)
        assert self._arena is not None, "a window with a variable field has an arena"
        bounds = memory.take(field.name, self.num_rows * 16).view(np.int64).reshape(2, self.num_rows)
        return RaggedColumn(values=self._arena.view(field.storage), starts=bounds[0], stops=bounds[1])

    def _scatter(self, job: FrameJob, *, scratch: Scratch) -> None:
        frame = job.piece.frame
        size = job.shard.plain_bytes[frame]
        scratch.make_room(size)
        job.shard.read_into(frame, scratch.plain(size), scratch=scratch.sealed)
        source = scratch.rows(job.shard.num_samples[frame], size=size)
        selected = _selection(job, first_row=0)
        for name, target in self._rows.items():
            target.put(job.places, source[name][selected])

    def _bring(self, job: FrameJob, arena: Bytes, *, scratch: Scratch) -> Kept:
        """Bring the rows that the job needs into the arena, and keep what the next window will need."""
        shard, piece = job.shard, job.piece
        if job.kept is None:
            size = shard.plain_bytes[piece.frame]
            scratch.make_room(size)
            plain = arena[job.arena_start : job.arena_start + size].data
            shard.read_into(piece.frame, plain, scratch=scratch.sealed)
            num_samples = shard.num_samples[piece.frame]
            rows = Kept(shard, piece.frame, 0, num_samples, decode_frame(self._schema, plain, num_samples))
        else:
            part = _copy_into(arena[job.arena_start :], _still_needed(job.kept, piece))
            rows = Kept(shard, piece.frame, piece.skip, piece.stop, part)
        if piece.skip + piece.num_rows < piece.stop:
            self.kept[job.lane] = rows
        return rows

    def _place(self, job: FrameJob, held: Kept) -> None:
        rows = _selection(job, first_row=held.first_row)
        fixed = _rows_of(held.columns)
        for name, target in self.columns.items():
            source = held.columns[name]
            if isinstance(target, RaggedColumn) and isinstance(source, Ragged):
                _place_bounds(target, source, rows=rows, places=job.places)
            else:
                self._rows[name].put(job.places, fixed[name][rows])


def arena_bytes_of(shard: Shard, piece: Piece, *, kept: Kept | None) -> int:
    """Room that a frame takes in a window: all of it, or what is still needed of one kept."""
    if kept is None:
        return _aligned(shard.plain_bytes[piece.frame])
    part = _still_needed(kept, piece).values()
    return sum(_aligned(column.values.nbytes) for column in part if isinstance(column, Ragged))


def _still_needed(kept: Kept, piece: Piece) -> Columns:
    return slice_columns(kept.columns, piece.skip - kept.first_row, piece.stop - kept.first_row)


def _copy_into(arena: Bytes, columns: Columns) -> Columns:
    """Ragged values copied to the start of the arena, one column after the other; fixed ones copied apart."""
    copied: Columns = {}
    for name, column in columns.items():
        if not isinstance(column, Ragged):
            copied[name] = column.copy()
            continue
        values = arena[: column.values.nbytes].view(column.values.dtype)
        values[...] = column.values
        copied[name] = Ragged(values=values, offsets=column.offsets)
        arena = arena[_aligned(values.nbytes) :]
    return copied


def _aligned(size_bytes: int) -> int:
    """Frames and columns start at cache lines, as their readers expect."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _rows_of(columns: Mapping[str, NDArray[Any] | Ragged | RaggedColumn]) -> Rows:
    """The fixed columns with each row as one item: numpy moves an item by one copy, without the lock."""
    return {
        name: np.ascontiguousarray(column).reshape(-1).view(f"V{column.nbytes // len(column)}")
        for name, column in columns.items()
        if isinstance(column, np.ndarray) and len(column)
    }


def _selection(job: FrameJob, *, first_row: int) -> slice | Int64s:
    """The rows that a job places, counted from the first one there is."""
    low = job.piece.skip - first_row
    return slice(low, low + job.piece.num_rows) if job.rows is None else low + job.rows


def _place_bounds(target: RaggedColumn, source: Ragged, *, rows: slice | Int64s, places: Int64s) -> None:
    shift = (_address(source.values) - _address(target.values)) // target.values.itemsize
    target.starts[places] = source.offsets[:-1][rows] + shift
    target.stops[places] = source.offsets[1:][rows] + shift


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _allocate(size_bytes: int) -> Bytes:
    """Zeroed private pages, huge ones where the system gives them, left out of core dumps."""
    pages = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):
        if hasattr(mmap, advice):
            pages.madvise(getattr(mmap, advice))
    return np.frombuffer(pages, np.uint8)


def _count_own_references() -> int:
    """References that `is_free` sees on a block nobody else holds, on this interpreter."""
    blocks = {"": np.empty(1, np.uint8)}
    return next(sys.getrefcount(blocks[name]) for name in blocks)


_OWN_REFERENCES = _count_own_references()

"""One window in memory: frames are decrypted and their samples put where the order wants them.

A column of fixed shape is scattered: the frame is decrypted into a small buffer that stays in the core's
cache, and its rows are copied once, each to its shuffled place, so that a batch is a plain slice. Variable
columns are not copied at all: their frame is decrypted into the window, and only starts and stops are
shuffled.

Memory of a window is reused as soon as nobody holds a view of it any more (fresh pages would cost more than
the decryption). It is excluded from core dumps.

Not covered: wiping freed window memory; swap (use encrypted swap or none); copies that the user makes.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Int64s
from rsc.store.container import ContainerReader
from rsc.store.schema import ALIGNMENT, Field, Ragged, Schema, decode_frame

Bytes = NDArray[np.uint8]
_TAG_BYTES = 16


@dataclass(frozen=True)
class FrameJob:
    """Rows `rows` of one frame go to rows `places` of the window."""

    reader: ContainerReader
    frame: int
    rows: slice | Int64s
    places: Int64s
    arena_start: int


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
        """At least zero bytes under a name; what was there before is lost. Pages are kept between uses."""
        block = self._blocks.get(name)
        if block is None or len(block) < size_bytes:
            block = self._blocks[name] = _allocate(size_bytes)
        return block[:size_bytes]

    @property
    def is_free(self) -> bool:
        """Whether no view of the memory is left: one reference is ours, one is the call's argument."""
        return all(sys.getrefcount(self._blocks[name]) <= _OWN_REFERENCES for name in self._blocks)


class Window:
    """The columns of one window. `fill` may run in several threads over shared jobs."""

    def __init__(self, schema: Schema, *, fields: tuple[Field, ...], num_rows: int, memory: WindowMemory,
                 arena_bytes: int) -> None:  # fmt: skip
        self.num_rows = num_rows
        self._schema = schema
        self._arena = memory.take("", arena_bytes) if arena_bytes else None
        self.columns: dict[str, NDArray[Any] | RaggedColumn] = {
            field.name: self._column(field, memory=memory) for field in fields
        }

    def _column(self, field: Field, *, memory: WindowMemory) -> NDArray[Any] | RaggedColumn:
        if not field.is_ragged:
            values = memory.take(field.name, self.num_rows * field.row_bytes).view(field.storage)
            return values.reshape(self.num_rows, *field.shape)
        assert self._arena is not None, "a window with a variable field has an arena"
        bounds = memory.take(field.name, self.num_rows * 16).view(np.int64).reshape(2, self.num_rows)
        return RaggedColumn(values=self._arena.view(field.storage), starts=bounds[0], stops=bounds[1])

    def fill(self, jobs: Iterator[FrameJob], *, scratch: Scratch) -> None:
        """Do jobs until none is left. Raises IntegrityError where a frame does not authenticate."""
        for job in jobs:
            size = int(job.reader.frames["plain_bytes"][job.frame])
            plain = scratch.plain(size)
            if self._arena is not None:
                plain = self._arena[job.arena_start : job.arena_start + size].data
            job.reader.read_frame_into(job.frame, plain, scratch=scratch.sealed(size))
            self._place(job, plain)

    def _place(self, job: FrameJob, plain: memoryview) -> None:
        num_samples = int(job.reader.frames["num_samples"][job.frame])
        columns = decode_frame(self._schema, plain, num_samples)
        for name, target in self.columns.items():
            source = columns[name]
            if isinstance(target, RaggedColumn):
                assert isinstance(source, Ragged)
                _place_bounds(target, source, job=job)
            else:
                assert not isinstance(source, Ragged)
                _place_rows(target, source[job.rows], places=job.places)


class Scratch:
    """A thread's own buffers for one frame, small enough to stay in its core's cache."""

    def __init__(self) -> None:
        self._plain = bytearray()
        self._sealed = bytearray()

    def plain(self, size: int) -> memoryview:
        if len(self._plain) < size:
            self._plain = bytearray(size)
        return memoryview(self._plain)[:size]

    def sealed(self, size: int) -> bytearray:
        if len(self._sealed) < size + _TAG_BYTES:
            self._sealed = bytearray(size + _TAG_BYTES)
        return self._sealed


def arena_bytes_of(frame_bytes: int) -> int:
    """Room that a frame takes in a window: frames start at cache lines, as their columns expect."""
    return -(-frame_bytes // ALIGNMENT) * ALIGNMENT


def _place_rows(target: NDArray[Any], rows: NDArray[Any], *, places: Int64s) -> None:
    """`target[places] = rows`, a whole row at a time (one memory copy each, the GIL released)."""
    row_bytes = target.nbytes // max(len(target), 1)
    if row_bytes:
        as_items = np.dtype(f"V{row_bytes}")
        np.put(_flat(target, as_items), places, _flat(rows, as_items))


def _flat(rows: NDArray[Any], item: np.dtype[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(rows).reshape(-1).view(item)


def _place_bounds(target: RaggedColumn, source: Ragged, *, job: FrameJob) -> None:
    shift = (_address(source.values) - _address(target.values)) // target.values.itemsize
    target.starts[job.places] = source.offsets[:-1][job.rows] + shift
    target.stops[job.places] = source.offsets[1:][job.rows] + shift


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _allocate(size_bytes: int) -> Bytes:
    """Zeroed pages, huge ones where the system gives them, left out of core dumps."""
    pages = mmap.mmap(-1, max(size_bytes, 1))
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):
        if hasattr(mmap, advice):
            pages.madvise(getattr(mmap, advice))
    return np.frombuffer(pages, np.uint8)


def _own_references() -> int:
    """References that `is_free` sees on a block nobody else holds, on this interpreter."""
    memory = {"": np.empty(1, np.uint8)}
    return next(sys.getrefcount(memory[name]) for name in memory)


_OWN_REFERENCES = _own_references()

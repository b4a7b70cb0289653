"""One window in memory: frames are decrypted into it, and batches are gathered from it.

A frame is decrypted to its place in the window's arena. When all are there, it is worked out for the rows of
all frames at once where each row of the shuffled window lies: a batch of a fixed column is one gather by a
part of that list. Of variable columns only starts and stops are shuffled. Either way a batch is a copy.

Copying rows to their shuffled places as soon as a frame is decrypted is no cheaper: docs/decisions/0019 has
the figures.

Not covered: copies that the user makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Frames, Shard
from rsc.loader.layout import Bytes, aligned, lay_out, runs_of
from rsc.loader.memory import WindowMemory
from rsc.loader.order import Int64s
from rsc.store.format.frames import ALIGNMENT
from rsc.store.format.schema import Field, Schema
from rsc.store.format.suites import MOST_TAG_BYTES


class Kept(NamedTuple):
    """A frame in the arena of the window before, of which this window needs more rows."""

    shard: int
    frame: int
    plain: memoryview


class FrameJob(NamedTuple):
    """A frame goes to [start, stop) of the arena: decrypted, or copied where the window before has it."""

    shard: Shard
    frame: int
    start: int
    stop: int
    kept: memoryview | None
    is_listed: bool
    """Whether the list of coming reads counts it."""


@dataclass(frozen=True)
class WindowRows:
    """The rows of a window: those of `pieces`, one piece after the other, or the part of them that `is_ours`.

    Row i of them, counted after that choice, is row `places[i]` of the window.
    """

    pieces: Frames
    places: Int64s
    is_ours: NDArray[np.bool_] | None

    @property
    def arena_starts(self) -> Int64s:
        """Where each piece's frame begins in the arena."""
        sizes: Int64s = aligned(self.pieces["plain_bytes"])
        return np.cumsum(sizes) - sizes

    @property
    def arena_bytes(self) -> int:
        return int(aligned(self.pieces["plain_bytes"]).sum())

    def count_from(self, firsts: Int64s, *, step: int = 1) -> Int64s:
        """A number for each row that is chosen: those of a piece rise by `step` from its first."""
        numbers = runs_of(firsts, counts=self.pieces["num_rows"], step=step)
        return numbers if self.is_ours is None else numbers[self.is_ours]


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


class Scratch:
    """A thread's own buffer for the ciphertext of a frame, where storage does not show it in place."""

    def __init__(self) -> None:
        self._sealed = bytearray()

    def sealed(self, size: int) -> bytearray:
        """Room for a frame of `size` bytes and its tag."""
        if len(self._sealed) < size + MOST_TAG_BYTES:
            self._sealed = bytearray(size + MOST_TAG_BYTES)
        return self._sealed


class Window:
    """The columns of one window. `fill` may run in several threads over shared jobs; then `place`, once."""

    def __init__(
        self,
        schema: Schema,
        *,
        fields: tuple[Field, ...],
        rows: WindowRows,
        memory: WindowMemory,
        is_numbered: bool,
        after_read: Callable[[], None],
    ) -> None:
        """`after_read` is called, from any thread, after each job that is listed."""
        self._after_read = after_read
        self._rows = rows
        self.num_rows = len(rows.places)
        self.numbers = memory.take("#", self.num_rows * 8).view(np.int64) if is_numbered else None
        self._schema = schema
        self._arena = memory.take("", rows.arena_bytes)
        self.columns: dict[str, FixedColumn | RaggedColumn] = {
            field.name: self._column(field, memory=memory) for field in fields
        }

    def fill(self, jobs: Iterable[FrameJob], *, scratch: Scratch) -> None:
        """Do jobs until none is left. Raises IntegrityError where a frame does not authenticate."""
        arena = self._arena.data
        for job in jobs:
            plain = arena[job.start : job.stop]
            if job.kept is None:
                job.shard.read_into(job.frame, plain, scratch=scratch.sealed(len(plain)))
            else:
                plain[:] = job.kept
            if job.is_listed:
                self._after_read()

    def place(self) -> None:
        """Work out where each row lies. Raises IntegrityError for frames of another schema."""
        rows, pieces = self._rows, self._rows.pieces
        layout = lay_out(
            self._schema,
            self._arena,
            starts=rows.arena_starts,
            sizes=pieces["plain_bytes"],
            num_samples=pieces["num_samples"],
        )
        rows_before = np.cumsum(pieces["num_samples"]) - pieces["num_samples"]
        for name, column in self.columns.items():
            if isinstance(column, FixedColumn):
                firsts = layout.fixed[name] + pieces["skip"] * column.row_bytes
                steps = rows.count_from(
                    firsts // column.step_bytes, step=column.row_bytes // column.step_bytes
                )
                column.row_steps[rows.places] = steps
            else:
                chosen = rows.count_from(rows_before + pieces["skip"])
                column.starts[rows.places] = layout.ragged[name].starts[chosen]
                column.stops[rows.places] = layout.ragged[name].stops[chosen]
        if self.numbers is not None:
            self.numbers[rows.places] = rows.count_from(pieces["first_sample"] + pieces["skip"])

    def kept(self) -> dict[int, Kept]:
        """For each lane, the frame that goes on in the next window."""
        pieces = self._rows.pieces
        arena = self._arena.data
        kept: dict[int, Kept] = {}
        for number in np.flatnonzero(pieces["goes_on"]).tolist():
            piece, start = pieces[number], int(self._rows.arena_starts[number])
            plain = arena[start : start + int(piece["plain_bytes"])]
            kept[int(piece["lane"])] = Kept(int(piece["shard"]), int(piece["frame"]), plain)
        return kept

    def _column(self, field: Field, *, memory: WindowMemory) -> FixedColumn | RaggedColumn:
        if not field.is_ragged:
            row_steps = memory.take(field.name, self.num_rows * 8).view(np.int64)
            return FixedColumn(field, arena=self._arena, row_steps=row_steps)
        bounds = memory.take(field.name, self.num_rows * 16).view(np.int64).reshape(2, self.num_rows)
        values = self._arena[: len(self._arena) // ALIGNMENT * ALIGNMENT].view(field.storage)
        return RaggedColumn(values=values, starts=bounds[0], stops=bounds[1])

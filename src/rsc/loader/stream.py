"""The windows of one rank, in order, filled when they are reached or by threads ahead of that.

With threads, the next window is decrypted while one is consumed: decryption and row copies release the
interpreter lock, and nothing has to be sent between processes. Without, nobody waits for that lock, which on
two quiet cores took a third more CPU time than the work itself; docs/decisions/0007 has the figures.

`coming` lists the windows that a stream will open, for the node's cache to fetch ahead (ahead.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Frames, OpenShards, SectionReader
from rsc.loader.memory import WindowMemory
from rsc.loader.order import Order, PlannedWindow, lanes_of_rank
from rsc.loader.window import FrameJob, Kept, Scratch, Window, WindowRows
from rsc.store.format.schema import Field
from rsc.store.splits import SplitReader

_MAX_MEMORIES = 2  # the window in use, and the next one where threads fill it


class _SharedJobs:
    """An iterator that threads share: `next` on a list iterator is atomic under the interpreter lock."""

    def __init__(self, jobs: list[FrameJob]) -> None:
        self._jobs = iter(jobs)

    def __iter__(self) -> Iterator[FrameJob]:
        return self

    def __next__(self) -> FrameJob:
        return next(self._jobs)


@dataclass
class RankWindow:
    """The rank's rows [first, first + num_rows) of the run, in memory once `wait` returns."""

    span: PlannedWindow
    first: int
    window: Window
    filling: list[Future[None]]
    is_placed: bool = False

    @property
    def stop(self) -> int:
        return self.first + self.window.num_rows

    def wait(self) -> Window:
        """The window, filled. Raises IntegrityError where a frame does not authenticate."""
        if not self.is_placed:
            for part in self.filling:
                part.result()
            self.filling.clear()
            self.window.place()
            self.is_placed = True
        return self.window


class WindowStream:
    """Opens windows of a rank one after the other, filled at once, or by `threads` tasks in `pool`."""

    def __init__(
        self,
        split: SplitReader,
        *,
        order: Order,
        fields: tuple[Field, ...],
        rank: int,
        world_size: int,
        after_read: Callable[[], None],
        is_numbered: bool = False,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 1,
    ) -> None:
        """`after_read` is called, from any thread, after each read that `coming` lists."""
        self._is_numbered = is_numbered
        self._schema = split.schema
        self._order = order
        self._fields = fields
        self._rank = rank
        self._world_size = world_size
        self._after_read = after_read
        self._max_shards = 2 * order.lanes // math.gcd(order.lanes, world_size) + 2
        self._shards = OpenShards(split)
        self._sections = SectionReader(split, order=order, shards=self._shards)
        self._memories: list[WindowMemory] = []
        self._kept: dict[int, Kept] = {}
        self._aside = WindowMemory()
        self._pool = pool
        self._next: int | None = None  # where the window after the last one opened begins
        self._scratches = [Scratch() for _ in range(max(threads, 1))]

    @property
    def is_threaded(self) -> bool:
        return self._pool is not None

    def first_row_at(self, position: int) -> int:
        """The rank's rows before a position: it takes the positions that are `rank` modulo `world_size`."""
        return -((self._rank - position) // self._world_size)

    def open(self, position: int) -> RankWindow:
        """Start filling the window that holds `position`. The window before it must be filled."""
        span = self._order.window_at(position)
        is_jump = span.start != self._next
        if is_jump:
            self._kept = {}
        if not self.is_threaded:
            self._set_aside()
        self._next = span.stop
        first = self.first_row_at(span.start)
        rows, jobs = self._plan(span, first=first, is_jump=is_jump)
        window = Window(
            self._schema,
            fields=self._fields,
            rows=rows,
            memory=self._free_memory(),
            is_numbered=self._is_numbered,
            after_read=self._after_read,
        )
        self._kept = window.kept()
        shared = _SharedJobs(jobs)
        if self._pool is None:
            window.fill(shared, scratch=self._scratches[0])
            return RankWindow(span, first, window, [])
        filling = [self._pool.submit(window.fill, shared, scratch=scratch) for scratch in self._scratches]
        return RankWindow(span, first, window, filling)

    def span_at(self, position: int) -> PlannedWindow:
        """Which window holds a position, without opening it."""
        return self._order.window_at(position)

    def coming(self, position: int, *, split: SplitReader, end: int | None = None) -> Iterator[Frames]:
        """The frames that each window adds, from the one that holds `position` to the last before `end`.

        Reads through `split`, so that it can be worked out in another thread.
        """
        shards = OpenShards(split)
        sections = SectionReader(split, order=self._order, shards=shards)
        is_jump = True
        if end is not None:  # windows behind the rank's last row are never opened
            end = self._rank + (self.first_row_at(end) - 1) * self._world_size + 1
        while end is None or position < end:
            shards.keep_newest(self._max_shards)
            span = self._order.window_at(position)
            lanes = lanes_of_rank(self._order, span, rank=self._rank, world_size=self._world_size)
            pieces = sections.pieces(span, lanes=lanes)
            yield pieces[_is_first_look(pieces, is_jump=is_jump)]
            position, is_jump = span.stop, False

    def jump(self) -> None:
        """The next window does not follow the last one: frames kept from it are read again."""
        self._next = None

    def close(self) -> None:
        """Close the shards. Nobody may be filling a window."""
        self._shards.keep_newest(0)
        self._memories.clear()
        self._kept, self._aside = {}, WindowMemory()

    def _set_aside(self) -> None:
        """Copy what goes on out of the window before, so that the next one can be filled in its memory."""
        sizes = [len(kept.plain) for kept in self._kept.values()]
        aside = self._aside.take("", sum(sizes)).data
        starts = [0, *accumulate(sizes)]
        for (lane, kept), start in zip(self._kept.items(), starts, strict=False):
            plain = aside[start : start + len(kept.plain)]
            plain[:] = kept.plain
            self._kept[lane] = kept._replace(plain=plain)

    def _free_memory(self) -> WindowMemory:
        free = next((memory for memory in self._memories if memory.is_free), None)
        if free is None:
            free = WindowMemory()
            self._memories = [*self._memories, free][-_MAX_MEMORIES:]
        return free

    def _plan(self, span: PlannedWindow, *, first: int, is_jump: bool) -> tuple[WindowRows, list[FrameJob]]:
        """The rows of a window and what to read for them, worked out for all its frames at once."""
        self._shards.keep_newest(self._max_shards)
        lanes = lanes_of_rank(self._order, span, rank=self._rank, world_size=self._world_size)
        pieces = self._sections.pieces(span, lanes=lanes)
        is_listed = _is_first_look(pieces, is_jump=is_jump)
        positions = np.concatenate(self._order.positions(span, lanes=lanes))
        is_ours = None
        if self._order.lanes % self._world_size:
            is_ours = positions % self._world_size == self._rank
            is_read = np.logical_or.reduceat(is_ours, np.cumsum(pieces["num_rows"]) - pieces["num_rows"])
            for _ in range(int((is_listed & ~is_read).sum())):
                self._after_read()
            is_ours = is_ours[np.repeat(is_read, pieces["num_rows"])]
            positions = positions[positions % self._world_size == self._rank]
            pieces, is_listed = pieces[is_read], is_listed[is_read]
        rows = WindowRows(pieces, places=positions // self._world_size - first, is_ours=is_ours)
        return rows, self._jobs(rows, is_listed=is_listed)

    def _jobs(self, rows: WindowRows, *, is_listed: NDArray[np.bool_]) -> list[FrameJob]:
        pieces, starts = rows.pieces, rows.arena_starts
        return [
            FrameJob(self._shards.get(shard), frame, start, stop, self._take_kept(lane, shard, frame), listed)
            for lane, shard, frame, start, stop, listed in zip(
                pieces["lane"].tolist(),
                pieces["shard"].tolist(),
                pieces["frame"].tolist(),
                starts.tolist(),
                (starts + pieces["plain_bytes"]).tolist(),
                is_listed.tolist(),
                strict=True,
            )
        ]

    def _take_kept(self, lane: int, shard: int, frame: int) -> memoryview | None:
        kept = self._kept.get(lane)
        return kept.plain if kept is not None and (kept.shard, kept.frame) == (shard, frame) else None


def filling_threads(threads: int) -> ThreadPoolExecutor | None:
    """A pool that fills windows; none for 0 threads: then they are filled where they are asked for."""
    return ThreadPoolExecutor(threads, thread_name_prefix="rsc-loader") if threads else None


def _is_first_look(pieces: Frames, *, is_jump: bool) -> NDArray[np.bool_]:
    """Whether a lane comes to a frame that it did not have in the window before. [n]"""
    return np.ones(len(pieces), np.bool_) if is_jump else ~pieces["is_continued"]

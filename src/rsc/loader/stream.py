"""The windows of one rank, in order, filled when they are reached or by threads ahead of that.

With threads, the next window is decrypted while one is consumed: decryption and row copies release the
interpreter lock, and nothing has to be sent between processes. Without, nobody waits for that lock, which on
two quiet cores took a third more CPU time than the work itself; docs/decisions/0007 has the figures.

Where the split is read through a node's cache, the stream lists the frames that it will read, and the store's
follower fetches the next ones over several connections and evicts what is needed last (store/follow.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import Frames, OpenShards, SectionReader
from rsc.loader.order import Order, lanes_of_rank
from rsc.loader.order import Window as Span
from rsc.loader.window import FrameJob, Kept, Rows, Scratch, Window, WindowMemory
from rsc.store.cache import CHUNK_BYTES
from rsc.store.follow import Follower
from rsc.store.schema import Field
from rsc.store.splits import SplitReader, open_manifest

_MAX_MEMORIES = 4  # window in use, next one, and two that a slow consumer may still hold views of


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

    span: Span
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
    """Opens windows of a rank one after the other. `threads` = 0 fills a window when it is opened."""

    def __init__(
        self,
        split: SplitReader,
        *,
        order: Order,
        fields: tuple[Field, ...],
        rank: int,
        world_size: int,
        threads: int,
        is_numbered: bool,
        end: int | None = None,
        connections: int = 16,
    ) -> None:
        """Nothing is fetched ahead for positions from `end` on."""
        self._is_numbered = is_numbered
        self._schema = split.schema
        self._order = order
        self._fields = fields
        self._rank = rank
        self._world_size = world_size
        self._shards = OpenShards(split)
        self._sections = SectionReader(split, order=order, shards=self._shards)
        self._memories: list[WindowMemory] = []
        self._kept: dict[int, Kept] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rsc-loader") if threads else None
        self._split = split
        self._end = end
        self._connections = connections
        self._follower: Follower | None = None
        self._scout: SplitReader | None = None
        self._next: int | None = None  # where the window after the last one opened begins
        self._scratches = [Scratch() for _ in range(max(threads, 1))]

    @property
    def is_threaded(self) -> bool:
        return self._pool is not None

    def first_row_at(self, position: int) -> int:
        """The rank's rows before a position: it takes the positions that are `rank` modulo `world_size`."""
        return -((self._rank - position) // self._world_size)

    def memory_is_free(self) -> bool:
        """Whether the next window can be opened in memory that is already there."""
        return len(self._memories) < 2 or any(memory.is_free for memory in self._memories)

    def open(self, position: int) -> RankWindow:
        """Start filling the window that holds `position`. The window before it must be filled."""
        span = self._order.window_at(position)
        is_jump = span.start != self._next
        if is_jump:
            self._follow(span.start)
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

    def close(self) -> None:
        """Stop the threads and close the shards."""
        self._stop_following()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._shards.keep_newest(0)
        self._memories.clear()

    def _free_memory(self) -> WindowMemory:
        free = next((memory for memory in self._memories if memory.is_free), None)
        if free is None:
            free = WindowMemory()
            self._memories = [*self._memories, free][-_MAX_MEMORIES:]
        return free

    def _plan(self, span: Span, *, first: int, is_jump: bool) -> tuple[Rows, list[FrameJob]]:
        """The rows of a window and what to read for them, worked out for all its frames at once."""
        self._shards.keep_newest(2 * self._order.lanes + 2)
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
        rows = Rows(pieces, places=positions // self._world_size - first, is_ours=is_ours)
        return rows, self._jobs(rows, is_listed=is_listed)

    def _jobs(self, rows: Rows, *, is_listed: NDArray[np.bool_]) -> list[FrameJob]:
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

    def _follow(self, position: int) -> None:
        """Let the store fetch what comes from here on; the reader begins, or has jumped."""
        self._stop_following()
        self._kept = {}
        if self._split.place.cache is None:
            return
        # Looks ahead in a thread of its own, so it gets its own pages of the manifest.
        self._scout = copy(self._split)
        self._scout.manifest = open_manifest(self._split.place, totals=self._split.manifest.totals)
        self._follower = self._scout.follow(
            self._frames_from(position, split=self._scout),
            ahead_bytes=CHUNK_BYTES * (self._order.lanes + 2 * self._connections),
            connections=self._connections,
        )

    def _stop_following(self) -> None:
        if self._follower is not None and self._scout is not None:
            self._follower.close()
            self._scout.close()
        self._follower = self._scout = None

    def _after_read(self) -> None:
        if self._follower is not None:
            self._follower.advance()

    def _frames_from(self, position: int, *, split: SplitReader) -> Iterator[tuple[int, int]]:
        """(shard, frame) in the order in which the windows from `position` on read them."""
        shards = OpenShards(split)
        sections = SectionReader(split, order=self._order, shards=shards)
        is_jump = True
        while self._end is None or position < self._end:
            shards.keep_newest(2 * self._order.lanes + 2)
            span = self._order.window_at(position)
            lanes = lanes_of_rank(self._order, span, rank=self._rank, world_size=self._world_size)
            pieces = sections.pieces(span, lanes=lanes)
            pieces = pieces[_is_first_look(pieces, is_jump=is_jump)]
            yield from zip(pieces["shard"].tolist(), pieces["frame"].tolist(), strict=True)
            position, is_jump = span.stop, False

    def _take_kept(self, lane: int, shard: int, frame: int) -> memoryview | None:
        kept = self._kept.get(lane)
        return kept.plain if kept is not None and (kept.shard, kept.frame) == (shard, frame) else None


def _is_first_look(pieces: Frames, *, is_jump: bool) -> NDArray[np.bool_]:
    """Whether a lane comes to a frame that it did not have in the window before. [n]"""
    return np.ones(len(pieces), np.bool_) if is_jump else ~pieces["is_continued"]

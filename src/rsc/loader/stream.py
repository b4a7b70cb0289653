"""The windows of one rank, in order, filled by threads ahead of their use.

While a window is consumed the next one is decrypted. Threads, not processes: decryption and row copies
release the interpreter lock, and nothing has to be sent between processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsc.loader.frames import OpenShards, Piece, SectionReader, Shard
from rsc.loader.order import Int64s, Order, lanes_of_rank
from rsc.loader.order import Window as Span
from rsc.loader.window import FrameJob, Held, Scratch, Window, WindowMemory, arena_bytes_of
from rsc.store.schema import Field
from rsc.store.splits import SplitReader

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

    @property
    def stop(self) -> int:
        return self.first + self.window.num_rows

    def wait(self) -> Window:
        """The window, filled. Raises IntegrityError where a frame does not authenticate."""
        for part in self.filling:
            part.result()
        self.filling.clear()
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
    ) -> None:
        self._is_numbered = is_numbered
        self._schema = split.schema
        self._order = order
        self._fields = fields
        self._rank = rank
        self._world_size = world_size
        self._shards = OpenShards(split)
        self._sections = SectionReader(split, order=order, shards=self._shards)
        self._memories: list[WindowMemory] = []
        self._kept: dict[int, Held] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rsc-loader") if threads else None
        self._scratches = [Scratch() for _ in range(max(threads, 1))]

    def first_row_at(self, position: int) -> int:
        """The rank's rows before a position: it takes the positions that are `rank` modulo `world_size`."""
        return -((self._rank - position) // self._world_size)

    def memory_is_free(self) -> bool:
        """Whether the next window can be opened in memory that is already there."""
        return len(self._memories) < 2 or any(memory.is_free for memory in self._memories)

    def open(self, position: int) -> RankWindow:
        """Start filling the window that holds `position`. The window before it must be filled."""
        span = self._order.window_at(position)
        first = self.first_row_at(span.start)
        jobs, arena_bytes = self._jobs(span, first=first)
        num_rows = self.first_row_at(span.stop) - first
        window = Window(
            self._schema,
            fields=self._fields,
            num_rows=num_rows,
            memory=self._free_memory(),
            arena_bytes=arena_bytes,
            is_numbered=self._is_numbered,
        )
        self._kept = window.kept
        shared = _SharedJobs(jobs)
        if self._pool is None:
            window.fill(shared, scratch=self._scratches[0])
            return RankWindow(span, first, window, [])
        filling = [self._pool.submit(window.fill, shared, scratch=scratch) for scratch in self._scratches]
        return RankWindow(span, first, window, filling)

    def close(self) -> None:
        """Stop the threads and close the shards."""
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

    def _jobs(self, span: Span, *, first: int) -> tuple[list[FrameJob], int]:
        """What to read for a window, and the bytes of its arena."""
        self._shards.keep_newest(2 * self._order.lanes + 2)
        lanes = lanes_of_rank(self._order, span, rank=self._rank, world_size=self._world_size)
        jobs: list[FrameJob] = []
        arena_bytes = 0
        for lane, positions in zip(lanes.tolist(), self._order.positions(span, lanes=lanes), strict=True):
            section = self._sections.section(span.epoch, round_=span.round, lane=lane)
            places, is_ours = self._places(positions, first=first)
            for piece in section.pieces(start=span.first, stop=span.first + len(positions)):
                low = piece.start - span.first
                part = places[low : low + piece.num_rows]
                rows = None if is_ours is None else np.flatnonzero(is_ours[low : low + piece.num_rows])
                if rows is not None:
                    part = part[rows]
                shard = self._shards.get(piece.shard)
                kept = self._take_kept(lane, shard, piece)
                if len(part):
                    jobs.append(FrameJob(shard, piece, part, rows, arena_bytes, lane, kept))
                    arena_bytes += arena_bytes_of(shard, piece, kept=kept)
        return jobs, arena_bytes

    def _places(self, positions: Int64s, *, first: int) -> tuple[Int64s, NDArray[np.bool_] | None]:
        """Rows of the window for positions, and which of them are ours; None when a lane is one rank's."""
        if self._world_size == 1:
            return positions - first, None
        places = positions // self._world_size - first
        if self._order.lanes % self._world_size == 0:
            return places, None
        return places, positions % self._world_size == self._rank

    def _take_kept(self, lane: int, shard: Shard, piece: Piece) -> Held | None:
        kept = self._kept.get(lane)
        if kept is None or (kept.shard, kept.frame) != (shard, piece.frame):
            return None
        return kept if kept.first_row <= piece.skip and piece.stop <= kept.stop else None

"""What a rank reads next, told to the node's cache, which fetches it and evicts what is needed last.

    ahead = ReadAhead(split, lanes=64, connections=16)
    ahead.begin(lambda scout: frames_of(stream.coming(0, split=scout)))     # the list of coming reads
    ahead.advance()                                                         # after each read of the list

One stream is listed as it is read: the order is a formula. Several streams, read as their bytes run out, are
listed by bytes: sizes of frames are public, so the list keeps step with the reader however far the streams
drift apart in samples.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Event
from typing import TypeAlias, TypeVar

import numpy as np

from rsc.errors import ResourceError
from rsc.loader.frames import Frames
from rsc.store.cache.node_cache import CHUNK_BYTES
from rsc.store.cache.prefetch import Follower
from rsc.store.format.container import ContainerReader
from rsc.store.format.manifest import ShardRecord
from rsc.store.splits import SplitReader

Found = TypeVar("Found")
Reads: TypeAlias = "Iterator[tuple[int, int]]"
"""(shard, frame), in the order in which they are read."""


_PAUSE_S = 1.0  # before what failed in passing is looked at again; the store has tried for half a minute


class _ScoutSplit(SplitReader):
    """The split as the list's thread reads it: tables that are out of reach for a while are waited for.

    The reader goes on meanwhile, by what the cache has, and the list stays in step with it.
    """

    def __init__(self, split: SplitReader) -> None:
        super().__init__(split.place, schema=split.schema, totals=split.manifest.totals, key=split._key)
        self._is_stopped = Event()

    def open_shard(self, shard: int) -> ContainerReader:
        return self._patiently(partial(super().open_shard, shard))

    def record_of_sample(self, sample: int) -> ShardRecord:
        return self._patiently(partial(super().record_of_sample, sample))

    def stop_waiting(self) -> None:
        """What fails from now on is raised."""
        self._is_stopped.set()

    def _patiently(self, look: Callable[[], Found]) -> Found:
        while True:
            try:
                return look()
            except ResourceError:
                if self._is_stopped.wait(_PAUSE_S):
                    raise


class ReadAhead:
    """The follower of a rank's reads (store/cache/prefetch.py); does nothing where there is no cache."""

    def __init__(self, split: SplitReader, *, lanes: int, connections: int) -> None:
        self._split = split
        self._ahead_bytes = CHUNK_BYTES * (lanes + 2 * connections)
        self._connections = connections
        self._follower: Follower | None = None
        self._scout: _ScoutSplit | None = None

    def begin(self, list_reads: Callable[[SplitReader], Reads]) -> None:
        """Fetch by this list from now on. It is worked out in a thread of its own, on its own SplitReader."""
        self.stop()
        if self._split.place.cache is None:
            return
        self._scout = _ScoutSplit(self._split)
        self._follower = self._scout.follow(
            list_reads(self._scout), ahead_bytes=self._ahead_bytes, connections=self._connections
        )

    def advance(self) -> None:
        """The next read of the list has been made. Safe from any thread."""
        if self._follower is not None:
            self._follower.advance()

    def stop(self) -> None:
        if self._follower is not None and self._scout is not None:
            self._scout.stop_waiting()
            self._follower.close()
            self._scout.close()
        self._follower = self._scout = None


def frames_of(windows: Iterator[Frames]) -> Reads:
    """The reads of windows, one window after the other."""
    for pieces in windows:
        yield from zip(pieces["shard"].tolist(), pieces["frame"].tolist(), strict=True)


def by_bytes(streams: Sequence[Iterator[Frames]], *, unread: Sequence[float]) -> Iterator[Frames]:
    """Windows of several streams in the order in which they are opened when bytes are used up evenly.

    `unread` is the share of each stream's first window that is still to be used. A stream's next window is
    opened when those before it are used up; ties go to the first stream.
    """
    due = [(0.0, number) for number in range(len(streams))]
    while due:
        bytes_before, number = heapq.heappop(due)
        pieces = next(streams[number], None)
        if pieces is None:
            continue
        yield pieces
        share = unread[number] if bytes_before == 0.0 else 1.0
        # A frame counts where it is first needed, whole unless lanes share it, so that no error adds up.
        part = np.where(pieces["is_edge"], pieces["num_rows"] / pieces["num_samples"], 1.0)
        window_bytes = float((pieces["plain_bytes"] * part).sum())
        heapq.heappush(due, (bytes_before + max(window_bytes * share, 1.0), number))

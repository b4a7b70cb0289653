"""Fetching what comes next, and telling the cache what comes later.

The order of samples is a formula, so a loader can list its coming reads for as far as it likes. A `Follower`
takes that list as an iterator: some threads bring in the next `ahead_bytes`, and the reads beyond, up to
`horizon` of them, are published as the job's plan, by which the node's cache evicts (eviction.py). Looking
ahead opens shards, so a thread of its own does that, and the reader never waits for it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from threading import BoundedSemaphore, Condition, Thread

from rsc.clock import Clock, SystemClock
from rsc.errors import RscError
from rsc.store.cache.node_cache import CHUNK_BYTES, CachedShard, ShardCache

HORIZON_READS = 1 << 17  # 32 GiB of frames of 256 KiB
_PUBLISHES = 16  # times that the plan is written while one horizon is used up


@dataclass(frozen=True, slots=True)
class CachedRead:
    """One coming read: a range of a shard."""

    shard: CachedShard
    offset: int
    size_bytes: int

    @property
    def chunks(self) -> range:
        return self.shard.chunks_of(self.offset, size_bytes=self.size_bytes)

    @property
    def names(self) -> list[str]:
        return [self.shard.chunk_name(chunk) for chunk in self.chunks]

    def hold(self, line: AbstractContextManager[object]) -> None:
        """Bring in what is missing."""
        for chunk in self.chunks:
            self.shard.hold(chunk, line=line)


class Follower:
    """Prefetches for one reader: `advance` once for each read, in the order of `reads`; `close` at the end.

    `connections` requests are in flight at most: latency times line rate over 4 MiB of them fill a line.
    There are half as many threads more, so that it stays full while chunks that came are checked and written.
    A fetch that fails is met again, and raised, by the reader that needs the bytes.
    """

    def __init__(
        self,
        cache: ShardCache,
        *,
        reads: Iterator[CachedRead],
        ahead_bytes: int,
        connections: int = 16,
        horizon: int = HORIZON_READS,
        clock: Clock | None = None,
    ) -> None:
        self._reads = reads
        self._ahead_chunks = max(ahead_bytes // CHUNK_BYTES, 1)
        self._horizon = horizon
        self._clock = clock or SystemClock()
        self._start_s = self._clock.monotonic_s()
        self._plan = cache.plan()
        self._line = BoundedSemaphore(connections)
        self._pool = ThreadPoolExecutor(connections + connections // 2 + 1, thread_name_prefix="rsc-prefetch")
        self._changed = Condition()
        self._future: deque[CachedRead] = deque()  # coming reads; the first len(_fetching) are being fetched
        self._fetching: deque[Future[None]] = deque()
        self._near: Counter[str] = Counter()  # chunks of the reads in _fetching
        self._num_read = 0
        self._behind = 0  # reads that were made before they were looked at
        self._unpublished = 0
        self._is_at_end = False
        self._is_closed = False
        self._is_idle = False
        self._scout = Thread(target=self._look_ahead, name="rsc-scout", daemon=True)
        self._scout.start()

    def advance(self) -> None:
        """The reader finished the next read of its list. Reads behind its end change nothing."""
        with self._changed:
            self._num_read += 1
            if not self._future:
                self._behind += not self._is_at_end
                return
            self._unpublished += 1
            read = self._future.popleft()
            if self._fetching:
                self._fetching.popleft()
                self._near.subtract(read.names)
                self._near = +self._near
            self._fetch_near()
            self._changed.notify_all()

    def wait(self) -> None:
        """Until the list is full, the plan is written, and what is to be held now has arrived or failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_idle and not self._has_work())
            fetching = list(self._fetching)
        for fetch in fetching:
            fetch.exception()

    def close(self) -> None:
        """Stop fetching and withdraw the plan. What was fetched stays in the cache."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._scout.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._plan.close()

    def _look_ahead(self) -> None:
        """The scout: keep the list of coming reads full and the plan fresh."""
        while True:
            with self._changed:
                if not self._has_work():
                    self._is_idle = True
                    self._changed.notify_all()
                    self._changed.wait_for(self._has_work)
                    self._is_idle = False
                if self._is_closed:
                    return
                plan = self._plan_if_due()
            if plan is not None:
                with suppress(RscError, OSError):  # the plan before counts a little longer
                    self._plan.publish(plan)
                continue
            self._take_next()

    def _has_work(self) -> bool:
        is_short = not self._is_at_end and len(self._future) < self._horizon
        return self._is_closed or is_short or self._is_due()

    def _take_next(self) -> None:
        """One more read into the list. An error of the list ends it: the reader will meet the same."""
        try:
            read = next(self._reads, None)
        except (RscError, FileNotFoundError):
            read = None
        with self._changed:
            self._unpublished += 1
            if read is None:
                self._is_at_end = True
            elif self._behind:
                self._behind -= 1
            else:
                self._future.append(read)
                self._fetch_near()
            self._changed.notify_all()

    def _fetch_near(self) -> None:
        """Start what is now near enough. Called with the lock held."""
        while len(self._near) < self._ahead_chunks and len(self._fetching) < len(self._future):
            if self._is_closed:
                return
            read = self._future[len(self._fetching)]
            self._fetching.append(self._pool.submit(read.hold, self._line))
            self._near.update(read.names)

    def _is_due(self) -> bool:
        """Whether enough changed to write the plan again: a share of the horizon, or of what is left at the
        end of the list."""
        listed = len(self._future) if self._is_at_end else self._horizon
        return self._unpublished >= max(listed // _PUBLISHES, 1)

    def _plan_if_due(self) -> dict[str, float] | None:
        """The next use of each chunk, at the pace of the reads so far. Called with the lock held."""
        if not self._is_due():
            return None
        self._unpublished = 0
        now_s = self._clock.monotonic_s()
        pace_s = (now_s - self._start_s) / self._num_read if self._num_read else 0.0
        next_use_s: dict[str, float] = {}
        for position, read in enumerate(self._future):
            for name in read.names:
                next_use_s.setdefault(
                    name, now_s + position * max(pace_s, 1e-6)
                )  # the order counts before the pace
        return next_use_s

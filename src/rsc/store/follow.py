"""Fetching what comes next, and telling the cache what comes later.

The order of samples is a formula, so a loader can list its coming uses of chunks for as far as it likes. A
`Follower` takes that list as an iterator: some threads bring in the next `ahead_bytes`, and the uses beyond,
up to `horizon` chunks, are published as the job's plan, by which the node's cache evicts (eviction.py).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from rsc.clock import Clock, SystemClock
from rsc.store.cache import CHUNK_BYTES, CachedShard, NodeCache
from rsc.store.plans import Plan

HORIZON_CHUNKS = 1 << 16  # 256 GiB of future; 6 MB of plan file
_PUBLISHES = 16  # times that the plan is written while one horizon is used up


@dataclass(frozen=True, slots=True)
class ChunkUse:
    """One coming read: a chunk of a shard."""

    shard: CachedShard
    chunk: int

    @property
    def name(self) -> str:
        return self.shard.chunk_name(self.chunk)


class Follower:
    """Prefetches for one reader: `advance` once for each use, in the order of `uses`, and `close` at the end.

    `connections` requests are in flight at most: latency times line rate over 4 MiB of them fill a line.
    A fetch that fails is met again, and raised, by the reader that needs the chunk.
    """

    def __init__(
        self,
        cache: NodeCache,
        *,
        uses: Iterator[ChunkUse],
        ahead_bytes: int,
        connections: int = 16,
        horizon: int = HORIZON_CHUNKS,
        clock: Clock | None = None,
    ) -> None:
        self._uses = uses
        self._ahead = max(ahead_bytes // CHUNK_BYTES, 1)
        self._horizon = max(horizon, self._ahead + 1)
        self._clock = clock or SystemClock()
        self._plan = Plan(cache.folder)
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="rsc-prefetch")
        self._future: deque[ChunkUse] = deque()
        self._fetching: deque[Future[None]] = deque()
        self._near: Counter[str] = Counter()  # the chunks of the uses in _fetching
        self._num_used = 0
        self._since_publish = 0
        self._start_s = self._clock.monotonic_s()
        self._refill()
        self._publish()

    def advance(self) -> None:
        """The reader finished the next use of its list."""
        use = self._future.popleft()
        if self._fetching:
            self._fetching.popleft()
            self._near[use.name] -= 1
            if not self._near[use.name]:
                del self._near[use.name]
        self._num_used += 1
        self._since_publish += 1
        self._refill()
        if self._since_publish * _PUBLISHES >= self._horizon:
            self._publish()

    def wait(self) -> None:
        """Until everything that is to be held now has arrived, or failed."""
        for fetch in list(self._fetching):
            fetch.exception()

    def close(self) -> None:
        """Stop fetching and withdraw the plan. What was fetched stays in the cache."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._plan.close()

    def _refill(self) -> None:
        """Look further into the list, and start what is now near enough."""
        while len(self._future) < self._horizon:
            use = next(self._uses, None)
            if use is None:
                break
            self._future.append(use)
        while len(self._near) < self._ahead and len(self._fetching) < len(self._future):
            use = self._future[len(self._fetching)]
            self._fetching.append(self._pool.submit(use.shard.hold, use.chunk))
            self._near[use.name] += 1

    def _publish(self) -> None:
        """Write the plan: the next use of each chunk, at the pace of the uses so far."""
        now_s = self._clock.monotonic_s()
        seconds_per_use = (now_s - self._start_s) / self._num_used if self._num_used else 0.0
        pace_s = max(seconds_per_use, 1e-6)  # before the first use only the order counts
        next_use_s: dict[str, float] = {}
        for position, use in enumerate(self._future):
            next_use_s.setdefault(use.name, now_s + position * pace_s)
        self._plan.publish(next_use_s)
        self._since_publish = 0

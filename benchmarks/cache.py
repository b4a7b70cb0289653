"""What a node cache that knows the order saves, and whether prefetching fills a slow line.

    python benchmarks/cache.py [--json] [--quick]

    miss_ratio   chunks fetched for each chunk needed, in the epochs after the first, the cache holding a
                 part of the set. Subjects: `rsc` is the real cache folder evicting by the jobs' published
                 plans, `lru` and `optimum` (Belady's bound) are computed over the same trace. In `two_jobs`
                 readers with orders of their own share a cache of 25 %; there is one optimum for both.
    mb_per_s     a reader with 1, 4 and 16 connections of 100 ms latency and 50 MB/s each (simulated by
                 sleeping; the bytes come from memory), beside `line`: as many threads that only download the
                 same chunks over the same connections and drop them
    cpu_s_per_gb CPU seconds that this took; the machine's cores divided by it bound mb_per_s from above
    crossed      bytes that crossed the line for each byte of the shard, after every byte was read twice

The trace is the loader's own order: sections of a shard dealt to lanes, frames permuted within a section,
8 frames to a chunk, 4 lanes. Below the lanes' own chunks (32) any cache fetches chunks several times.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import harness
import numpy as np

from rsc.clock import SystemClock
from rsc.keys.secret import SecretKey
from rsc.loader.order import Order
from rsc.store.bulk.local import LocalStore
from rsc.store.cache.chunk_folder import ChunkFolder
from rsc.store.cache.eviction import belady_misses, lru_misses
from rsc.store.cache.node_cache import CHUNK_BYTES, NodeCache
from rsc.store.cache.prefetch import CachedRead, Follower
from rsc.store.cache.read_plans import ReadPlan
from rsc.store.format.container import ContainerRecord, ContainerWriter

_FRAMES_PER_CHUNK, _CHUNKS_PER_SHARD, _LANES = 8, 8, 4
_SMALL_CHUNK = 64  # bytes of a chunk in the miss-ratio cases: only counts matter there
_LATENCY_S, _RATE_BYTES_PER_S = 0.1, 50e6


def measure(options: harness.Options) -> harness.Report:
    report = harness.Report()
    num_shards = 64 if options.quick else 128
    for percent in (10, 25, 50):
        found = harness.alternate(
            ("rsc", "lru", "optimum"),
            runs=1 if options.quick else options.runs,
            measure=lambda subject, percent=percent: {"miss_ratio": _one_job(subject, num_shards, percent)},
        )
        _add(report, f"{percent}%", found)
    shared = harness.alternate(
        ("rsc", "lru", "optimum"),
        runs=1 if options.quick else options.runs,
        measure=lambda subject: {"miss_ratio": _two_jobs(subject, num_shards)},
    )
    _add(report, "two_jobs", shared)
    for connections in (1, 4, 16):
        rate = harness.alternate(
            ("rsc", "line"),
            runs=1 if options.quick else options.runs,
            measure=lambda subject, n=connections: _line(subject, n, quick=options.quick),
        )
        _add(report, f"{connections}_connections", rate)
    report.notes.append(
        "latency and line rate are simulated by sleeping; the cache, its checks and its disk are real"
    )
    return report


def _add(report: harness.Report, case: str, found: dict[str, dict[str, list[float]]]) -> None:
    for subject, metrics in found.items():
        for metric, values in metrics.items():
            report.add(case, metric=metric, subject=subject, values=values)


def trace(num_shards: int, *, seed: int, epochs: int = 3) -> list[str]:
    """Chunk names in the order that the loader reads frames, epoch after epoch."""
    frames_per_shard = _CHUNKS_PER_SHARD * _FRAMES_PER_CHUNK
    order = Order(
        num_samples=num_shards * frames_per_shard,
        seed=seed,
        lanes=_LANES,
        section_samples=frames_per_shard,
        window_samples=2,
    )
    return list(chain.from_iterable(_epoch(order, epoch, frames_per_shard) for epoch in range(epochs)))


def _epoch(order: Order, epoch: int, frames_per_shard: int) -> Iterator[str]:
    """One sample a frame: round after round, the lanes take turns."""
    for round_ in range(order.num_rounds):
        lanes = []
        for lane in range(order.lanes):
            (run,) = order.section(epoch, round_=round_, lane=lane)
            frames = order.frame_order(frames_per_shard, epoch=epoch, round_=round_, lane=lane)
            lanes.append([(run.start // frames_per_shard, int(frame)) for frame in frames])
        for step in zip(*lanes, strict=True):
            yield from (f"{shard:064x}.{frame // _FRAMES_PER_CHUNK}" for shard, frame in step)


def _one_job(subject: str, num_shards: int, percent: int) -> float:
    reads = trace(num_shards, seed=1)
    capacity = num_shards * _CHUNKS_PER_SHARD * percent // 100
    return _ratio(subject, [reads], capacity)


def _two_jobs(subject: str, num_shards: int) -> float:
    jobs = [trace(num_shards, seed=seed) for seed in (1, 2)]
    return _ratio(subject, jobs, num_shards * _CHUNKS_PER_SHARD // 4)


def _ratio(subject: str, jobs: list[list[str]], capacity: int) -> float:
    """Fetches for each chunk needed, after the first third (epoch)."""
    merged = [name for step in zip(*jobs, strict=True) for name in step]
    first = len(merged) // 3
    needed = 2 * len(jobs) * len(set(merged))  # two more epochs need every chunk once each
    if subject == "optimum":
        misses = belady_misses(merged, capacity=capacity) - belady_misses(merged[:first], capacity=capacity)
    elif subject == "lru":
        misses = lru_misses(merged, capacity=capacity) - lru_misses(merged[:first], capacity=capacity)
    else:
        misses = _real_misses(jobs, capacity, first)
    return misses / needed


def _real_misses(jobs: list[list[str]], capacity: int, first: int) -> int:
    """The cache folder itself; each job publishes what it reads next, up to an epoch ahead."""
    with tempfile.TemporaryDirectory() as name:
        folder = ChunkFolder(
            Path(name), limit_bytes=capacity * _SMALL_CHUNK, slack_bytes=0, clock=SystemClock()
        )
        plans = [ReadPlan(Path(name)) for _ in jobs]
        horizon = len(jobs[0]) // 3
        before = 0
        for position in range(len(jobs[0])):
            if position * len(jobs) == first:
                before = folder.counts.misses
            for job, plan in zip(jobs, plans, strict=True):
                if position % max(horizon // 64, 1) == 0:
                    plan.publish(_plan(job, position, horizon))
                os.close(
                    folder.get(job[position], expires=None, fetch=lambda: memoryview(bytes(_SMALL_CHUNK)))
                )
        for plan in plans:
            plan.close()
        return folder.counts.misses - before


def _plan(job: list[str], position: int, horizon: int) -> dict[str, float]:
    plan: dict[str, float] = {}
    for ahead, name in enumerate(job[position : position + horizon]):
        plan.setdefault(name, float(position + ahead))
    return plan


class _FarFile:
    """A file in memory behind connections that are slow and far away; counts what crosses."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size_bytes = len(data)
        self.crossed = 0

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]
        self.crossed += len(buffer)
        time.sleep(_LATENCY_S + len(buffer) / _RATE_BYTES_PER_S)

    def close(self) -> None:
        """Nothing to close."""


class _FarStore(LocalStore):
    """One far file."""

    def __init__(self, root: Path, file: _FarFile) -> None:
        super().__init__(root)
        self._file = file

    def open(self, path: str, *, size_bytes: int | None = None) -> Any:
        return self._file


def _line(subject: str, connections: int, *, quick: bool) -> dict[str, float]:
    num_chunks = (2 if quick else 6) * max(connections, 4)
    with tempfile.TemporaryDirectory() as name, SecretKey.generate() as key:
        record = _write_shard(Path(name), key, num_chunks)
        far = _FarFile((Path(name) / "a.rsc").read_bytes())
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        if subject == "line":
            _download(far, connections, num_chunks)
            read_twice = None
        else:
            read_twice = _read_through_cache(far, Path(name), record, connections, num_chunks)
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        size_bytes = num_chunks * CHUNK_BYTES
        found = {"mb_per_s": size_bytes / elapsed_s / 1e6, "cpu_s_per_gb": cpu_s / size_bytes * 1e9}
        if read_twice is not None:
            read_twice()
            found["crossed"] = far.crossed / record.size_bytes
    return found


def _download(far: _FarFile, connections: int, num_chunks: int) -> None:
    """The line's own limit: every connection fetches one chunk after the other into the same memory."""
    chunks = iter(range(num_chunks))

    def one_connection(_: int) -> None:
        buffer = bytearray(CHUNK_BYTES)
        for chunk in chunks:
            far.read_into(chunk * CHUNK_BYTES, buffer)

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(one_connection, range(connections)))


def _read_through_cache(
    far: _FarFile, folder: Path, record: ContainerRecord, connections: int, num_chunks: int
) -> Callable[[], None]:
    """Read a piece of every chunk in order, with prefetching. Returns what reads every byte again."""
    cache = NodeCache(folder / "cache", limit_bytes=2 * num_chunks * CHUNK_BYTES)
    store = _FarStore(folder, far)
    shard = cache.open(store, "a.rsc", digest=record.digest, size_bytes=record.size_bytes)
    reads = [CachedRead(shard, offset=chunk * CHUNK_BYTES, size_bytes=1000) for chunk in range(num_chunks)]
    follower = Follower(
        cache, reads=iter(reads), ahead_bytes=3 * connections * CHUNK_BYTES, connections=connections
    )
    buffer = bytearray(1000)
    for read in reads:
        read.shard.read_into(read.offset, buffer)
        follower.advance()
    follower.close()
    return lambda: shard.read_into(0, bytearray(record.size_bytes))


def _write_shard(folder: Path, key: SecretKey, num_chunks: int) -> ContainerRecord:
    frame = np.random.default_rng(0).integers(0, 256, (1 << 20) - 16, np.uint8)
    file = LocalStore(folder).create("a.rsc")
    writer = ContainerWriter(file, key=key, context=b"")
    for _ in range(num_chunks * CHUNK_BYTES >> 20):
        writer.write_frame(frame.data, num_samples=1)
    record = writer.finish()
    file.commit()
    return record


if __name__ == "__main__":
    harness.main(__doc__.splitlines()[0], measure)

"""What a node cache that knows the order saves, and whether prefetching fills a slow line.

    python benchmarks/cache.py [--json] [--quick]

    miss_ratio   chunks fetched for each chunk needed, in the epochs after the first, the cache holding a
                 part of the set. Subjects: `rsc` is the real cache folder evicting by the jobs' published
                 plans, `lru` and `optimum` (Belady's bound) are computed over the same trace. In `two_jobs`
                 readers with orders of their own share a cache of 25 %; there is one optimum for both.
    mb_per_s     a reader with 1, 4 and 16 connections of 100 ms latency and 50 MB/s each (simulated by
                 sleeping), beside `line`, what the connections can carry: chunk / (latency + chunk / rate).

The trace is the loader's own order: sections of a shard dealt to lanes, frames permuted within a section,
8 frames to a chunk, 4 lanes. Below the lanes' own chunks (32) any cache fetches chunks several times.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import harness
import numpy as np

from rsc.clock import SystemClock
from rsc.loader.order import Order
from rsc.store.cache import CHUNK_BYTES, NodeCache
from rsc.store.chunk_folder import ChunkFolder
from rsc.store.container import ContainerRecord, ContainerWriter
from rsc.store.eviction import belady_misses, lru_misses
from rsc.store.follow import CachedRead, Follower
from rsc.store.local import LocalReader, LocalStore
from rsc.store.plans import Plan
from rsc.store.secret import SecretKey

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
            measure=lambda subject, n=connections: {"mb_per_s": _line(subject, n, quick=options.quick)},
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
        plans = [Plan(Path(name)) for _ in jobs]
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


class _FarStore(LocalStore):
    """A folder behind connections that are slow and far away."""

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        class Far(LocalReader):
            def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
                super().read_into(offset, buffer)
                time.sleep(_LATENCY_S + len(buffer) / _RATE_BYTES_PER_S)

        return Far(self.root / path)


def _line(subject: str, connections: int, *, quick: bool) -> float:
    if subject == "line":
        return connections * CHUNK_BYTES / (_LATENCY_S + CHUNK_BYTES / _RATE_BYTES_PER_S) / 1e6
    num_chunks = (2 if quick else 6) * max(connections, 4)
    with tempfile.TemporaryDirectory() as name, SecretKey.generate() as key:
        record = _write_shard(Path(name), key, num_chunks)
        cache = NodeCache(Path(name) / "cache", limit_bytes=2 * num_chunks * CHUNK_BYTES)
        shard = cache.open(_FarStore(Path(name)), "a.rsc", digest=record.digest, size_bytes=record.size_bytes)
        reads = [
            CachedRead(shard, offset=chunk * CHUNK_BYTES, size_bytes=1000) for chunk in range(num_chunks)
        ]
        start = time.perf_counter()
        follower = Follower(
            cache, reads=iter(reads), ahead_bytes=2 * connections * CHUNK_BYTES, connections=connections
        )
        buffer = bytearray(1000)
        for read in reads:
            read.shard.read_into(read.offset, buffer)
            follower.advance()
        elapsed_s = time.perf_counter() - start
        follower.close()
    return num_chunks * CHUNK_BYTES / elapsed_s / 1e6


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

"""What an open data set costs from 10^3 to 4x10^9 shards of 256 MiB, an exabyte.

    python benchmarks/exabyte.py [--json] [--quick]

Each measurement is a process of its own that opens a virtual data set (virtual_store.py) with the real code:

    open_s                 Dataset.open and its split: root.json and the manifest's top page, checked
    locate_s               the slowest of 200 samples all over the set, each found with nothing cached, the
                           best of 3 tries (so that it is the sample that is slow and not the machine)
    rss_growth_mb          resident memory after all that, above what it was before opening
    heap_bytes_per_shard   Python heap of the open data set above that of 10^3 shards, for each further shard
    heap_mb                Python heap after the look-ups: a cache of pages with a fixed limit
    state_bytes            JSON of a loader's state in the middle of the set
    first_batch_s          from the loader's making to 256 shuffled samples out of the set, decrypted

The virtual store's own memory is inside these figures. Heap and state do not vary between runs and are
measured once and twice; the whole takes about a minute.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import harness

CASES = {
    "1e3": 10**3, "1e4": 10**4, "1e5": 10**5, "1e6": 10**6, "1e7": 10**7, "1e8": 10**8, "1e9": 10**9,
    "4e9": 4 * 10**9,
}  # fmt: skip
_LOOK_UPS = 200
_SEED = 1
_BATCH = 256


def measure(options: harness.Options) -> harness.Report:
    report = harness.Report()
    for _, found in _figures(options):
        for case, metrics in found.items():
            for metric, values in metrics.items():
                report.add(case, metric=metric, subject="rsc", values=values)
    report.notes.append(
        "the bulk tier is virtual: pages and shards are computed when read; the reading code is real"
    )
    return report


def _figures(options: harness.Options) -> list[tuple[str, dict[str, dict[str, list[float]]]]]:
    heap = harness.alternate(CASES, runs=1, measure=lambda case: _worker("heap", case))
    opened = {case: metrics.pop("open_heap_bytes") for case, metrics in heap.items()}
    for case in list(CASES)[1:]:
        grown = [here - there for here, there in zip(opened[case], opened["1e3"], strict=True)]
        heap[case]["heap_bytes_per_shard"] = [size / (CASES[case] - CASES["1e3"]) for size in grown]
    plain = harness.alternate(CASES, runs=options.runs, measure=lambda case: _worker("plain", case))
    ends = ("1e3", "4e9") if options.quick else tuple(CASES)
    loaded = harness.alternate(ends, runs=min(options.runs, 2), measure=lambda case: _worker("loader", case))
    return [("plain", plain), ("heap", heap), ("loader", loaded)]


def _worker(what: str, case: str) -> dict[str, float]:
    return harness.run_worker([sys.executable, __file__, "--worker", what, case], timeout_s=120)


def _store(num_shards: int, *, real: set[int]) -> tuple[Any, Any]:
    from virtual_store import VirtualStore

    from rsc.keys.secret import SecretKey

    key = SecretKey.from_buffer(bytearray(range(32)))
    return VirtualStore(num_shards, key=key, real=real), key


def plain(num_shards: int) -> dict[str, float]:
    """open_s, locate_s, rss_growth_mb."""
    from rsc.store.dataset import Dataset

    small, key = _store(10, real=set())  # everything is imported and touched once, as in a running program
    Dataset.open(small, name="virtual").split("train", key=key).locate(5)
    gc.collect()
    before = _rss_bytes()
    store, key = _store(num_shards, real=set())
    start = time.perf_counter()
    split = Dataset.open(store, name="virtual").split("train", key=key)
    opened = time.perf_counter() - start
    rng = random.Random(_SEED)
    slowest = 0.0
    for _ in range(_LOOK_UPS):
        sample = rng.randrange(split.num_samples)
        slowest = max(slowest, min(_locate_s(store, key, sample) for _ in range(3)))
        found = split.locate(sample)
        assert (found.shard, found.sample_in_shard) == divmod(sample, split.num_samples // num_shards)
    return {"open_s": opened, "locate_s": slowest, "rss_growth_mb": (_rss_bytes() - before) / 1e6}


def _locate_s(store: Any, key: Any, sample: int) -> float:
    from rsc.store.dataset import Dataset

    fresh = Dataset.open(store, name="virtual").split("train", key=key)
    start = time.perf_counter()
    fresh.locate(sample)
    return time.perf_counter() - start


def heap(num_shards: int) -> dict[str, float]:
    """Python heap of the open data set, and after many look-ups."""
    from rsc.store.dataset import Dataset

    small, key = _store(10, real=set())
    Dataset.open(small, name="virtual").split("train", key=key).locate(5)
    store, key = _store(num_shards, real=set())
    gc.collect()
    tracemalloc.start()
    split = Dataset.open(store, name="virtual").split("train", key=key)
    gc.collect()
    opened = tracemalloc.get_traced_memory()[0]
    rng = random.Random(_SEED)
    for _ in range(_LOOK_UPS):
        split.locate(rng.randrange(split.num_samples))
    gc.collect()
    return {"open_heap_bytes": float(opened), "heap_mb": tracemalloc.get_traced_memory()[0] / 1e6}


def loader(num_shards: int) -> dict[str, float]:
    """A loader over the set: its state, and its first batch with every sample checked."""
    import numpy as np

    from rsc.loader.loader import Loader, plan_order
    from rsc.store.dataset import Dataset

    def split_of(real: set[int]) -> Any:
        store, key = _store(num_shards, real=real)
        return Dataset.open(store, name="virtual").split("train", key=key)

    window_bytes = 64 << 20
    first_shard = split_of({0})
    order = plan_order(first_shard, seed=_SEED, window_bytes=window_bytes)
    runs = [run for lane in range(order.lanes) for run in order.section(0, round_=0, lane=lane)]
    split = split_of(
        {0} | {first_shard.locate(sample).shard for run in runs for sample in (run.start, run.stop - 1)}
    )
    start = time.perf_counter()
    with Loader(split, batch_size=_BATCH, seed=_SEED, window_bytes=window_bytes) as made:
        tokens = np.asarray(next(made)["tokens"])
        first_batch_s = time.perf_counter() - start
        numbers = np.ascontiguousarray(tokens[:, :4]).view(np.uint64).ravel()
        inside = [any(run.start <= number < run.stop for run in runs) for number in numbers.tolist()]
        assert len(set(numbers.tolist())) == _BATCH, "samples repeat"
        assert all(inside), "a sample that the order does not name"
        made.load_state_dict({**made.state_dict(), "position": split.num_samples // 2})
        state_bytes = len(json.dumps(made.state_dict()))
    return {"state_bytes": float(state_bytes), "first_batch_s": first_batch_s}


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker = {"plain": plain, "heap": heap, "loader": loader}[sys.argv[2]]
        print(json.dumps(worker(CASES[sys.argv[3]])))
    else:
        harness.main(__doc__.splitlines()[0], measure)

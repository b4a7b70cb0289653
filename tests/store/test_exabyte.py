"""The reading code at 4x10^9 shards, over bytes that are computed (benchmarks/virtual_store.py)."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.virtual_store import FRAME_SAMPLES, NAME, SHARD_BYTES, SHARD_SAMPLES, SPLIT, VirtualStore
from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.dataset import Dataset
from rsc.store.format.frames import decode_frame
from rsc.store.splits import SplitReader

EXABYTE = 4 * 10**9
KEY = SecretKey.from_buffer(bytearray(range(32)))


def open_split(num_shards: int, *, real: frozenset[int] = frozenset()) -> SplitReader:
    store = VirtualStore(num_shards, key=KEY, real=set(real))
    return Dataset.open(store, name=NAME).split(SPLIT, key=KEY)


@pytest.mark.parametrize("num_shards", [1, 256, 257, 65_537, 10**9, EXABYTE])
def test_the_far_end_is_found_opened_and_decrypted(num_shards: int) -> None:
    """The last sample of the set arrives with its own number in it."""
    split = open_split(num_shards, real=frozenset({0, num_shards - 1}))
    last = num_shards * SHARD_SAMPLES - 1
    assert split.num_samples == last + 1
    place = split.locate(last)
    assert (place.shard, place.sample_in_shard) == (num_shards - 1, SHARD_SAMPLES - 1)
    reader = split.open_shard(place.shard)
    frame, row = divmod(place.sample_in_shard, FRAME_SAMPLES)
    tokens = decode_frame(split.schema, reader.read_frame(frame), FRAME_SAMPLES)["tokens"]
    assert np.ascontiguousarray(tokens[row, :4]).view(np.uint64)[0] == last  # type: ignore[index, union-attr]


def test_it_is_an_exabyte() -> None:
    split = open_split(EXABYTE)
    assert split.size_bytes > 10**18
    assert split.size_bytes == EXABYTE * SHARD_BYTES


SPLIT_READER = open_split(EXABYTE)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, EXABYTE * SHARD_SAMPLES - 1))
def test_any_sample_is_located(sample: int) -> None:
    place = SPLIT_READER.locate(sample)
    assert (place.shard, place.sample_in_shard) == divmod(sample, SHARD_SAMPLES)


def test_a_shard_that_is_not_the_recorded_one_is_refused() -> None:
    with pytest.raises(IntegrityError) as caught:
        open_split(EXABYTE, real=frozenset({5})).open_shard(6)
    assert caught.value.facts["outcome"] == "header"


def test_an_open_set_has_the_same_heap_at_any_size() -> None:
    """0 bytes a shard: what is left is the width of a few integers."""

    def heap_bytes(num_shards: int) -> int:
        store = VirtualStore(num_shards, key=KEY, real=set())
        gc.collect()
        tracemalloc.start()
        kept = Dataset.open(store, name=NAME).split(SPLIT, key=KEY)
        gc.collect()
        found = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept.num_shards == num_shards
        return found

    heap_bytes(10**3)
    assert (
        abs(heap_bytes(10**9) - heap_bytes(10**3)) < 20_000
    )  # one page of 256 entries is 16 KiB, of 4 it is less


def test_memory_grows_by_less_than_20_mb_at_an_exabyte() -> None:
    command = [sys.executable, "benchmarks/exabyte.py", "--worker", "plain", "4e9"]
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rss_growth_mb"] < 20

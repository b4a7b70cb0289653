from __future__ import annotations

import numpy as np
import pytest

from rsc.loader.loader import Loader, plan_order
from rsc.loader.order import Order, read_amplification
from rsc.loader.pack import PackedLoader
from rsc.loader.shuffle_quality import Packing, _written_numbers, measure_order, measure_shuffle
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MakeSplit


def order_with(*, window_samples: int, lanes: int, num_samples: int = 65_536) -> Order:
    return Order(
        num_samples=num_samples, seed=1, lanes=lanes, section_samples=4096, window_samples=window_samples
    )


def test_a_window_over_everything_is_as_good_as_a_full_permutation() -> None:
    order = Order(num_samples=8192, seed=1, lanes=1, section_samples=8192, window_samples=8192)
    quality = measure_order(order, frame_samples=64, batch_samples=256)
    assert quality.frames_in_batch == pytest.approx(quality.frames_in_batch_full, rel=0.03)
    assert quality.worst_case_batch == pytest.approx(quality.worst_case_batch_full, rel=0.03)


def test_no_shuffle_at_all_is_seen() -> None:
    """Windows of one sample and a single lane: frames are read one after the other."""
    quality = measure_order(order_with(window_samples=1, lanes=1), frame_samples=64, batch_samples=256)
    assert quality.frames_in_batch < 6
    assert quality.worst_case_batch < 6


def test_more_window_mixes_better() -> None:
    worth = [
        measure_order(order_with(window_samples=64 * k, lanes=16), frame_samples=64, batch_samples=256)
        for k in (1, 2, 8)
    ]
    values = [quality.worst_case_batch for quality in worth]
    assert values == sorted(values)
    assert values[0] == pytest.approx(16, rel=0.2)  # some batches cross into the next window
    assert values[2] < worth[2].worst_case_batch_full


def test_measured_numbers_are_those_that_the_loader_delivers(numbers: SplitReader) -> None:
    order = plan_order(numbers, seed=5, window_bytes=4096, lanes=4)
    with Loader(numbers, batch_size=600, seed=5, window_bytes=4096, lanes=4) as loader:
        delivered = np.asarray(next(loader)["number"])
    assert np.array_equal(_written_numbers(order, start=0, count=600, frame_samples=40), delivered)


def test_explains_itself_without_a_key(numbers: SplitReader) -> None:
    quality = measure_shuffle(numbers.manifest, schema=numbers.schema, batch_samples=100, window_bytes=4096)
    assert quality.num_frames == 25
    assert "a batch of 100 draws from" in quality.explain()


@pytest.mark.parametrize("sequence_length", [6, 25, 64])
def test_packed_rows_are_measured_as_they_are_delivered(make_split: MakeSplit, sequence_length: int) -> None:
    """1,280 documents of 7 tokens, each its own number, 20 a frame: counted in the rows of an epoch."""
    numbers = np.arange(1280, dtype=np.uint16)
    column = Ragged(values=np.repeat(numbers, 7), offsets=np.arange(1281, dtype=np.int64) * 7)
    schema = Schema((Field("ids", "tokens", "uint16"),))
    split = make_split(schema, {"ids": column}, frame_bytes=20 * 18, shard_bytes=5 * (20 * 18 + 100))
    frames, worth = [], []
    with PackedLoader(
        split, field="ids", separator=60_000, sequence_length=sequence_length, batch_size=24, lanes=8,
        window_bytes=8 * 900, seed=4,
    ) as loader:  # fmt: skip
        order = loader._order
        for _ in range(1280 * 8 // (24 * sequence_length)):
            tokens = next(loader)["tokens_BL"].numpy().ravel()
            counts = np.bincount(tokens[tokens < 60_000] // 20)
            frames.append(np.count_nonzero(counts))
            worth.append(counts.sum() ** 2 / (counts**2).sum())
    packing = Packing(sequence_length, document_tokens=8)
    quality = measure_order(order, frame_samples=20, batch_samples=24, packing=packing)
    assert quality.frames_in_batch == pytest.approx(np.mean(frames), rel=0.15)
    assert quality.worst_case_batch == pytest.approx(np.mean(worth), rel=0.15)
    assert quality.worst_case_batch <= quality.worst_case_batch_full * 1.05
    assert "24 rows of" in quality.explain()


@pytest.mark.parametrize(("ranks", "times"), [(1, 1), (8, 1), (32, 1), (3, 3), (12, 3), (64, 2)])
def test_ranks_that_divide_the_lanes_read_each_frame_once(ranks: int, times: int) -> None:
    assert read_amplification(32, world_size=ranks) == times

from __future__ import annotations

import numpy as np
import pytest

from rsc.loader.loader import Loader, plan_order
from rsc.loader.order import Order
from rsc.loader.quality import _written_numbers, measure_order, measure_shuffle
from rsc.store.splits import SplitReader


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

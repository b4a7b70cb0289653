from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.loader.order import Order, SampleRun, lanes_of_rank, permute, shuffled

ORDERS = st.builds(
    Order,
    num_samples=st.integers(1, 3000),
    seed=st.integers(0, 2**64 - 1),
    lanes=st.integers(1, 12),
    section_samples=st.integers(1, 400),
    window_samples=st.integers(1, 90),
)


def written_number_at_each_position(order: Order, *, epoch: int) -> np.ndarray:
    """One epoch of the order, spelled out the slow way, with every sample its own frame."""
    start = epoch * order.num_samples
    result = np.full(order.num_samples, -1, np.int64)
    position = start
    while position < start + order.num_samples:
        window = order.window_at(position)
        lanes = np.arange(order.lanes)
        for lane, positions in zip(lanes, order.positions(window, lanes=lanes), strict=True):
            samples = samples_of_section(order, epoch=epoch, round_=window.round, lane=int(lane))
            mine = samples[window.first : window.first + window.lane_sizes[lane]]
            assert (positions % order.lanes == (window.start + lane) % order.lanes).all()
            at = positions - start
            assert (result[at] == -1).all()
            result[at] = mine
        position = window.stop
    return result


def samples_of_section(order: Order, *, epoch: int, round_: int, lane: int) -> np.ndarray:
    runs = order.section(epoch, round_=round_, lane=lane)
    written = np.concatenate([np.arange(run.start, run.stop) for run in runs] or [np.empty(0, np.int64)])
    return (
        written[order.frame_order(len(written), epoch=epoch, round_=round_, lane=lane)]
        if len(written)
        else written
    )


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(n, size=size, key=key) for n in range(size)) == list(range(size))


@pytest.mark.parametrize("size", [2**32 - 1, 2**32 + 1, 4 * 10**9, 2**62])
def test_permute_reaches_exabyte_sizes_without_collisions(size: int) -> None:
    moved = {permute(n * (size // 500), size=size, key=7) for n in range(500)}
    assert len(moved) == 500
    assert max(moved) < size


@given(size=st.integers(1, 5000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
def test_shuffled_is_an_order_for_each_key(size: int, keys: list[int]) -> None:
    together = shuffled(size, key=np.array(keys, dtype=np.uint64)[:, None])
    for row, key in zip(together, keys, strict=True):
        assert np.array_equal(np.sort(row), np.arange(size))
        assert np.array_equal(row, shuffled(size, key=key))


def many_orders(how: str, *, size: int, trials: int) -> np.ndarray:
    """int64 [trials, size]: orders of the same size under different keys."""
    keys = np.random.default_rng(1).integers(0, 2**64, trials, dtype=np.uint64)
    if how == "shuffled":
        return shuffled(size, key=keys[:, None])
    return np.array([[permute(n, size=size, key=int(key)) for n in range(size)] for key in keys])


def excess_chi_square(counts: np.ndarray, *, freedom: float) -> float:
    """How far counts are from equal, in standard deviations of chi-square."""
    expected = counts.sum() / counts.size
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize(
    ("how", "size", "trials"),
    [
        ("shuffled", 5, 4000),
        ("shuffled", 16, 4000),
        ("shuffled", 100, 4000),
        ("permute", 5, 3000),
        ("permute", 16, 1500),
    ],
)
def test_orders_are_uniform(how: str, size: int, trials: int) -> None:
    """Over many keys: every index goes everywhere, and steps between neighbours are spread, as they would
    be in uniformly random orders."""
    orders = many_orders(how, size=size, trials=trials)
    goes_to = np.bincount((np.arange(size) * size + orders).ravel(), minlength=size * size)
    assert abs(excess_chi_square(goes_to, freedom=(size - 1) ** 2)) < 5
    steps = np.bincount((np.diff(orders, axis=1) % size).ravel(), minlength=size)[1:]
    assert excess_chi_square(steps, freedom=size - 2) < 6
    ends = orders[:, 0] * size + orders[:, -1]
    pairs = np.bincount(ends, minlength=size * size).reshape(size, size)[~np.eye(size, dtype=bool)]
    assert abs(excess_chi_square(pairs, freedom=size * (size - 1) - 1)) < 5


@settings(max_examples=30, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 3))
def test_every_sample_comes_exactly_once_an_epoch(order: Order, epoch: int) -> None:
    written = written_number_at_each_position(order, epoch=epoch)
    assert np.array_equal(np.sort(written), np.arange(order.num_samples))


@settings(max_examples=60, deadline=None)
@given(order=ORDERS, world_size=st.integers(1, 9))
def test_windows_tile_the_epoch_and_ranks_tile_the_windows(order: Order, world_size: int) -> None:
    position = 0
    while position < 2 * order.num_samples:
        window = order.window_at(position)
        assert window.start == position < window.stop
        assert window.lane_sizes.sum() == window.stop - window.start
        assert order.window_at(window.stop - 1) == window
        for rank in range(world_size):
            needed = {
                (p - window.start) % order.lanes
                for p in range(window.start, window.stop)
                if p % world_size == rank
            }
            assert needed <= set(lanes_of_rank(order, window, rank=rank, world_size=world_size).tolist())
        position = window.stop


def test_a_rank_reads_only_its_own_lanes_when_ranks_divide_the_lanes() -> None:
    order = Order(num_samples=10_000, seed=1, lanes=8, section_samples=300, window_samples=64)
    position = 0
    while position < order.num_samples:
        window = order.window_at(position)
        owned = [lanes_of_rank(order, window, rank=rank, world_size=4).tolist() for rank in range(4)]
        assert sorted(lane for lanes in owned for lane in lanes) == list(range(8))
        position = window.stop


def test_equal_shards_are_sections() -> None:
    order = Order(num_samples=7 * 100, seed=3, lanes=3, section_samples=100, window_samples=10)
    runs = [order.section(0, round_=r, lane=lane)[0] for r in range(2) for lane in range(3)]
    assert all(run.start % 100 == 0 and run.stop == run.start + 100 for run in runs)
    assert len({run.start for run in runs}) == 6


def test_epochs_and_seeds_differ() -> None:
    order = Order(num_samples=999, seed=3, lanes=4, section_samples=100, window_samples=20)
    other = Order(num_samples=999, seed=4, lanes=4, section_samples=100, window_samples=20)
    first = written_number_at_each_position(order, epoch=0)
    assert not np.array_equal(first, written_number_at_each_position(order, epoch=1))
    assert not np.array_equal(first, written_number_at_each_position(other, epoch=0))


def test_an_exabyte_position_is_found_without_anything_stored() -> None:
    order = Order(
        num_samples=4 * 10**9 * 131_072, seed=5, lanes=64, section_samples=131_072, window_samples=512
    )
    window = order.window_at(3 * order.num_samples + 12_345_678_901_234)
    runs = order.section(3, round_=window.round, lane=63)
    assert runs == [SampleRun(runs[0].start, runs[0].start + 131_072)]
    assert 0 <= runs[0].start < order.num_samples


def test_golden_order_never_changes() -> None:
    """A run resumed by a newer release must see the same order: these numbers stay."""
    order = Order(num_samples=20, seed=42, lanes=2, section_samples=6, window_samples=4)
    golden = [7, 13, 8, 17, 9, 12, 11, 15, 10, 16, 6, 14, 18, 2, 19, 0, 5, 1, 4, 3]
    assert written_number_at_each_position(order, epoch=0).tolist() == golden


@pytest.mark.parametrize("name", ["num_samples", "lanes", "section_samples", "window_samples"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes = {"num_samples": 5, "lanes": 1, "section_samples": 1, "window_samples": 1} | {name: 0}
    with pytest.raises(ConfigError, match=name):
        Order(seed=0, **sizes)

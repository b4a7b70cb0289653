from __future__ import annotations

import random
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.store.cache.eviction import CachedChunk, belady_misses, choose_victims, lru_misses, merge_plans


def fewest_misses(trace: tuple[int, ...], *, capacity: int) -> int:
    """By trying every choice."""

    @cache
    def best(position: int, cached: frozenset[int]) -> int:
        if position == len(trace):
            return 0
        name = trace[position]
        if name in cached:
            return best(position + 1, cached)
        if len(cached) < capacity:
            return 1 + best(position + 1, cached | {name})
        return 1 + min(best(position + 1, (cached - {victim}) | {name}) for victim in cached)

    return best(0, frozenset())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=10), st.integers(1, 3))
def test_belady_is_the_best_there_is(trace: list[int], capacity: int) -> None:
    best = fewest_misses(tuple(trace), capacity=capacity)
    assert belady_misses(trace, capacity=capacity) == best
    assert lru_misses(trace, capacity=capacity) >= best


@pytest.mark.parametrize("percent", [10, 25, 50])
def test_a_second_shuffled_epoch_misses_less_than_with_lru(percent: int) -> None:
    """Two epochs in different orders; at 50 % LRU misses most of the second one."""
    chunks = list(range(400))
    epochs = [random.Random(seed).sample(chunks, len(chunks)) for seed in range(4)]
    trace = [chunk for epoch in epochs for chunk in epoch]
    capacity = len(chunks) * percent // 100
    assert belady_misses(trace, capacity=capacity) < lru_misses(trace, capacity=capacity)
    assert belady_misses(trace, capacity=len(chunks)) == len(chunks)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=8), st.integers(0, 20))
def test_victims_free_enough_and_no_more(items: list[tuple[int, int]], free_bytes: int) -> None:
    entries = [
        CachedChunk(str(number), size_bytes=size, used_s=used) for number, (used, size) in enumerate(items)
    ]
    victims = choose_victims(entries, next_use_s={}, free_bytes=free_bytes)
    freed = sum(victim.size_bytes for victim in victims)
    assert freed >= free_bytes or len(victims) == len(entries)
    assert not victims or freed - victims[-1].size_bytes < free_bytes
    kept = [entry.used_s for entry in entries if entry not in victims]
    assert not kept or not victims or max(victim.used_s for victim in victims) <= min(kept)


def test_unplanned_go_first_then_the_farthest() -> None:
    entries = [CachedChunk(name, size_bytes=1, used_s=0) for name in "abcd"]
    plan = merge_plans([{"a": 5.0, "b": 50.0}, {"a": 90.0, "c": 20.0}])
    assert plan == {"a": 5.0, "b": 50.0, "c": 20.0}
    order = [victim.name for victim in choose_victims(entries, next_use_s=plan, free_bytes=4)]
    assert order == ["d", "b", "c", "a"]


def test_all_pairs_of_two_jobs_share_the_nearest_use() -> None:
    for first, second in combinations([{"x": 1.0}, {"x": 2.0}, {"y": 3.0}], 2):
        merged = merge_plans([first, second])
        assert merged == merge_plans([second, first])
        assert all(merged[name] <= plan[name] for plan in (first, second) for name in plan)

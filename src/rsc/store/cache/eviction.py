"""What to throw out of a full cache when the future is known.

The order of samples is a formula, so each job can say when it will next use a chunk. The one whose next use
lies farthest away goes first (Belady 1966, "A study of replacement algorithms for a virtual-storage
computer", IBM Systems Journal 5(2)); with several jobs the nearest use of any of them counts. Chunks in
nobody's plan go before all others, least recently used first.

Pure functions: the caller measures, locks and deletes.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class CachedChunk:
    """A cached chunk. `used_s`: when it was last read, any clock that all entries share."""

    name: str
    size_bytes: int
    used_s: float


def choose_victims(
    entries: Iterable[CachedChunk], *, next_use_s: Mapping[str, float], free_bytes: int
) -> list[CachedChunk]:
    """Entries to remove, in order, until `free_bytes` are free; all of them if that is not enough."""
    by_worth = sorted(entries, key=lambda entry: (-next_use_s.get(entry.name, inf), entry.used_s))
    victims: list[CachedChunk] = []
    for entry in by_worth:
        if free_bytes <= 0:
            break
        victims.append(entry)
        free_bytes -= entry.size_bytes
    return victims


def merge_plans(plans: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The nearest use of each chunk over all jobs."""
    merged: dict[str, float] = {}
    for plan in plans:
        for name, use_s in plan.items():
            merged[name] = min(use_s, merged.get(name, inf))
    return merged


def lru_misses(trace: Sequence[Name], *, capacity: int) -> int:
    """Misses of a cache of `capacity` equal chunks that throws out the least recently used one."""
    cached: OrderedDict[Name, None] = OrderedDict()
    misses = 0
    for name in trace:
        if name in cached:
            cached.move_to_end(name)
            continue
        misses += 1
        cached[name] = None
        if len(cached) > capacity:
            cached.popitem(last=False)
    return misses


def belady_misses(trace: Sequence[Name], *, capacity: int) -> int:
    """Misses of a cache of `capacity` equal chunks that knows the whole trace: the fewest possible where
    each chunk must be brought in to be used."""
    next_use = _next_uses(trace)
    due: dict[Name, int] = {}
    farthest: list[tuple[int, int, Name]] = []
    misses = 0
    for position, name in enumerate(trace):
        if name not in due:
            misses += 1
            while len(due) >= capacity:
                use, _, victim = heapq.heappop(farthest)
                if due.get(victim) == -use:
                    del due[victim]
        due[name] = next_use[position]
        heapq.heappush(farthest, (-next_use[position], position, name))
    return misses


def _next_uses(trace: Sequence[Name]) -> list[int]:
    """For each position, where the same chunk is used next; beyond the end for never."""
    last: dict[Name, int] = {}
    found = [0] * len(trace)
    for position in range(len(trace) - 1, -1, -1):
        found[position] = last.get(trace[position], len(trace) + position)
        last[trace[position]] = position
    return found

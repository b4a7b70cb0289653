"""Jobs that wait, by size and time limit: a pass looks at the best job of each group, not at every job."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

LIMIT_STEPS_S = (3600.0, 4 * 3600.0, 86_400.0)


class Pending:
    """Heaps of (key, job); the lowest goes first. A key is fixed when a job arrives: all jobs age alike."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], list[tuple[float, int]]] = {}
        self.count = 0

    def add(self, job: int, *, key: float, gpus: int, limit_s: float) -> None:
        step = sum(limit_s > edge for edge in LIMIT_STEPS_S)
        heappush(self._groups.setdefault((gpus, step), []), (key, job))
        self.count += 1

    def heads(self) -> list[tuple[float, int, int, list[tuple[float, int]]]]:
        """A heap of (key, job, gpus, group), one for each group that has jobs."""
        heads = [(*group[0], gpus, group) for (gpus, _), group in self._groups.items() if group]
        heapify(heads)
        return heads

    def remove_head(self, group: list[tuple[float, int]]) -> None:
        heappop(group)
        self.count -= 1

    def jobs(self) -> list[int]:
        return [job for group in self._groups.values() for _, job in group]

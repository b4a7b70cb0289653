"""Which ranks go to which node: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NodePlace:
    node: str
    first_rank: int
    num_ranks: int

    @property
    def ranks(self) -> range:
        return range(self.first_rank, self.first_rank + self.num_ranks)


def place_ranks(
    slots: Mapping[str, int], *, before: Sequence[NodePlace], workers: int, worlds: Sequence[int]
) -> list[NodePlace]:
    """Ranks of the largest of `worlds` that is no larger than `workers` and has room in `slots` (by node, in
    order of preference).

    A node keeps the ranks that it had before wherever it can, for their snapshots are there; others fill the
    gaps. Raises ValueError where there is room for none.
    """
    room = sum(slots.values())
    world = max((w for w in worlds if w <= min(room, workers)), default=0)
    if not world:
        raise ValueError(f"no mesh of {room} ranks or fewer")
    stayed = [place.node for place in before if place.node in slots]
    fresh = iter([node for node in slots if node not in stayed])
    order = [place.node if place.node in slots else next(fresh, None) for place in before]
    nodes = [node for node in order if node is not None] + list(fresh)
    places, rank = [], 0
    for node in nodes:
        if rank < world:
            count = min(slots[node], world - rank)
            places.append(NodePlace(node, rank, count))
            rank += count
    return places

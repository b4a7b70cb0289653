"""What the ranks of one start share, and how a rank says that it is done; not what it does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from rsc.errors import RequeueMe


@dataclass(frozen=True)
class Placement:
    """Which ranks of a job are on this node in one start, and over what they reach their peers."""

    world: int
    """Ranks of the whole job."""
    first_rank: int
    local_world: int
    """This node has ranks `first_rank` to `first_rank + local_world - 1`."""
    interface: str
    """The network interface, by name; `lo` where all ranks are here."""
    carried: int = 0
    """Ranks whose snapshots go to the ranks that are so many places further, on another node; 0: to none."""

    @classmethod
    def on_this_node(cls, workers: int) -> Self:
        """For a job of one node."""
        return cls(world=workers, first_rank=0, local_world=workers, interface="lo")

    @property
    def ranks(self) -> range:
        """The ranks of this node."""
        return range(self.first_rank, self.first_rank + self.local_world)


@dataclass(frozen=True)
class RankSpec:
    """What a rank of one start is given. Crosses the fork (or a pickle, where processes are spawned)."""

    run: Path
    attempt: str
    """Different for every start, the same on all nodes."""
    place: Placement
    board: Path
    """Where the ranks of the node show what they are doing (heartbeats.py)."""
    keys: socket.socket
    """To the node's agent, for the keys by which ranks meet (rendezvous/rank_keys.py)."""
    memories: tuple[int, ...] = ()
    """Descriptors of the local ranks' snapshot memory; empty where snapshots are off."""
    wards: tuple[int, ...] = ()
    """Descriptors for the snapshots of ranks on another node; empty where there is none."""


class Ending(StrEnum):
    """How a rank ends that did not fail. It crosses the process border as an exit code."""

    FINISHED = "finished"
    REQUEUE = "requeue"

    @property
    def exit_code(self) -> int:
        return 0 if self is Ending.FINISHED else RequeueMe.exit_code


Entry = Callable[[int, RankSpec], Ending]
"""What a rank does, from its local rank and the spec of its start. Where processes are spawned it must be
picklable: a function of a module, or a `partial` of one."""

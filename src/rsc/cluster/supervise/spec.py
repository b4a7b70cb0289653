"""What the ranks of one start share, and how a rank says that it is done; not what it does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from rsc.errors import RequeueMe

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Rendezvous:
    """Where the ranks of one start meet, and which of them are on this node."""

    host: str
    port: int
    world: int
    """Ranks of the whole job."""
    first_rank: int
    local_world: int
    """This node has ranks `first_rank` to `first_rank + local_world - 1`."""

    @classmethod
    def on_this_node(cls, workers: int) -> Self:
        """For a job of one node: a port of loopback that nobody listens on now."""
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            return cls(LOOPBACK, int(probe.getsockname()[1]), workers, 0, workers)

    @property
    def ranks(self) -> range:
        """The ranks of this node."""
        return range(self.first_rank, self.first_rank + self.local_world)


@dataclass(frozen=True)
class RankSpec:
    """What every rank of one start on this node shares. Crosses the fork (or a pickle, where processes are
    spawned)."""

    run: Path
    attempt: str
    """Different for every start, on any node."""
    meeting: Rendezvous
    board: Path
    """Where ranks show what they are doing (heartbeats.py)."""
    memories: tuple[int, ...] = ()
    """Descriptors of the local ranks' snapshot memory; empty where snapshots are off."""


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

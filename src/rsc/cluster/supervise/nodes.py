"""All ranks of a job to whoever decides about them: on this node, or on many behind their agents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np


class Nodes(Protocol):
    """Between `start` and `end` (or `reap`) there is one start of all ranks."""

    @property
    def pids(self) -> Mapping[int, int]:
        """Of the ranks of this start, by rank; each on its own node."""
        ...

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[Any]]:
        """What each rank shows (heartbeats.py), by rank; times are of this process's clock."""
        ...

    def start(self, attempt: str) -> None:
        """Start every rank. Raises ResourceError where too few nodes are there for any mesh."""
        ...

    def exit_codes(self) -> dict[int, int]:
        """Of the ranks that have ended; negative for signals."""
        ...

    def reports(self, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What ended ranks wrote about why, or what is known of their node."""
        ...

    def dump(self, ranks: Iterable[int]) -> set[int]:
        """Have ranks write down what they are doing; those that did."""
        ...

    def end(self) -> list[int]:
        """SIGKILL every rank that is left; returns those that even that has not ended."""
        ...

    def reap(self) -> None:
        """Take note of the ends of all ranks, which have ended."""
        ...

    def request_stop(self) -> None:
        """Ask the ranks to write a checkpoint at the next step and leave. Safe in a signal handler."""
        ...

    def wait(self) -> None:
        """Sleep until something may have happened. Raises KeyboardInterrupt when the job's owner is gone."""
        ...

    def pause(self, seconds: float) -> None:
        """Let that time pass, and take in what happens meanwhile."""
        ...

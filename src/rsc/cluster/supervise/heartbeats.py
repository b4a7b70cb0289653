"""What each rank is doing now, in shared memory: ranks write, the supervisor of their node reads.

A heartbeat costs a rank some hundred nanoseconds and no file, so it can beat in every phase of a step.
No torch here.
"""

from __future__ import annotations

import enum
import mmap
import time
from pathlib import Path
from typing import Any

import numpy as np


class Phase(enum.IntEnum):
    """In the order in which a rank comes through them after it finished a step."""

    START = 0
    CHECKPOINT = 1
    DATA = 2
    COMPUTE = 3
    DONE = 4


ROW = np.dtype(
    [
        ("step", "<i8"),
        ("first_step", "<i8"),  # where this start went on; -1 before that is known
        ("beat_s", "<f8"),
        ("phase", "<i8"),
        ("loss", "<f8"),
        ("items", "<i8"),
        ("step_s", "<f8"),
        ("own_s", "<f8"),  # of step_s, what this rank worked itself: not waiting for others
        ("grad_norm", "<f8"),
    ]
)
_HEADER_BYTES = 64


class Board:
    """One row per local rank and two flags. Each number is written whole; rows have one writer."""

    def __init__(self, path: Path, *, num_ranks: int) -> None:
        """Open or make the file; the same path gives every process the same memory."""
        size = _HEADER_BYTES + num_ranks * ROW.itemsize
        with path.open("ab") as file:
            file.truncate(size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._flags = np.frombuffer(self._map, dtype="<i8", count=_HEADER_BYTES // 8)
        self.rows: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(self._map, dtype=ROW, offset=_HEADER_BYTES)

    def clear(self) -> None:
        """Before each start of the workers; the wish to stop stays."""
        self._flags[1] = 0
        self.rows[:] = np.zeros(1, ROW)
        self.rows["first_step"] = -1
        self.rows["beat_s"] = time.monotonic()

    @property
    def stop_requested(self) -> bool:
        return bool(self._flags[0])

    @property
    def dump_requested(self) -> bool:
        return bool(self._flags[1])

    def request_dump(self) -> None:
        """Ask the ranks to write down what they are doing (cluster/supervise/stack_dumps.py)."""
        self._flags[1] = 1

    def request_stop(self) -> None:
        """Ask the ranks to write a checkpoint at the next step and leave."""
        self._flags[0] = 1

    def beat(self, rank: int, *, phase: Phase, **facts: float) -> None:
        """This rank is alive and entering a phase."""
        row = self.rows[rank]
        for name, value in facts.items():
            row[name] = value
        row["phase"] = phase
        row["beat_s"] = time.monotonic()

"""Makes the faults of a drill (recipes/faults.py) happen in the rank that they name."""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from rsc.errors import DataError
from rsc.recipes.faults import Fault, FaultKind, parse_fault
from rsc.store.bulk.local import RealDisk


class FaultInjector:
    """Fires the faults of one rank. Files in `folder` remember, through restarts, which have fired."""

    def __init__(
        self,
        text: str,
        *,
        rank: int,
        folder: Path,
        tell: Callable[[Fault], None] = lambda _: None,
        stop_is_noted: Callable[[], bool] = lambda: True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`tell` hears of a fault just before it fires; `stop_is_noted`: the supervisor took SIGTERM up."""
        self._tell = tell
        self._stop_is_noted = stop_is_noted
        self._faults = [fault for fault in parse_fault(text) if fault.rank == rank]
        self._folder = folder
        self._sleep = sleep
        self._slow_s = 0.0
        self.loss_factor = 1.0
        self.fail_next_write = False

    def at(self, step: int) -> None:
        """Called by the rank at the start of each step; may not return."""
        self.loss_factor = 1.0
        for fault in self._faults:
            if fault.step == step and self._first_time(fault):
                self._tell(fault)
                self._fire(fault.kind)
        if self._slow_s:
            self._sleep(self._slow_s)

    def _first_time(self, fault: Fault) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        mark = self._folder / f"fault-rank{fault.rank}-step{fault.step}-{fault.kind}"
        if mark.exists():
            return False
        mark.touch()
        return True

    def _fire(self, kind: FaultKind) -> None:
        match kind:
            case FaultKind.SIGKILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case FaultKind.NODE:
                os.killpg(0, signal.SIGKILL)  # the agent, or the supervisor, and all its ranks
            case FaultKind.EXCEPTION:
                raise RuntimeError("injected fault: exception")
            case FaultKind.HANG:
                while True:
                    self._sleep(3600)
            case FaultKind.SLOW:
                self._slow_s = 0.2
            case FaultKind.NAN:
                self.loss_factor = math.nan
            case FaultKind.SPIKE:
                self.loss_factor = 1000.0
            case FaultKind.OOM:
                raise MemoryError("injected fault: out of memory")
            case FaultKind.DISK_FULL:
                self.fail_next_write = True
            case FaultKind.DATA:
                raise DataError("injected fault: a sample that does not decode")
            case FaultKind.SIGTERM:
                os.kill(os.getppid(), signal.SIGTERM)
                while not self._stop_is_noted():  # so that a drill stops at its step on any machine
                    self._sleep(0.005)


class FaultDisk(RealDisk):
    """The disk under checkpoints, full once when a `disk_full` fault has fired."""

    def __init__(self, faults: FaultInjector) -> None:
        self._faults = faults

    def write(self, fd: int, data: memoryview) -> int:
        if self._faults.fail_next_write:
            self._faults.fail_next_write = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, data)

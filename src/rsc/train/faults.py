"""Faults by vocabulary: `rank=1,step=30,kind=sigkill` makes that rank fail at that step, once a run.

A drill is part of the product: `train.fail_at` is in the recipe's hash and in the run's events, so a
run that was sabotaged says so for ever. Several faults are separated by `;`.
"""

from __future__ import annotations

import enum
import errno
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rsc.errors import ConfigError, DataError
from rsc.store.bulk.local import RealDisk


class FaultKind(enum.StrEnum):
    SIGKILL = "sigkill"  # the process is gone between two instructions
    EXCEPTION = "exception"  # a bug raises
    HANG = "hang"  # the rank stops stepping and stays alive
    SLOW = "slow"  # a straggler: every later step takes 0.2 s longer
    NAN = "nan"  # this batch gives a loss that is not a number
    SPIKE = "spike"  # this batch gives a thousand times its loss
    OOM = "oom"  # an allocation fails
    DISK_FULL = "disk_full"  # the next checkpoint meets ENOSPC
    DATA = "data"  # the loader meets bytes that do not decode
    SIGTERM = "sigterm"  # the scheduler asks the node to leave


@dataclass(frozen=True)
class Fault:
    rank: int
    step: int
    kind: FaultKind


def parse_fault(text: str) -> tuple[Fault, ...]:
    """Read `rank=1,step=30,kind=sigkill;...`; an empty text has no faults. Raises ConfigError."""
    return tuple(_parse_one(part) for part in text.split(";") if part.strip())


def _parse_one(text: str) -> Fault:
    pairs = dict(pair.partition("=")[::2] for pair in text.replace(" ", "").split(","))
    kinds = ", ".join(FaultKind)
    try:
        if set(pairs) != {"rank", "step", "kind"}:
            raise ValueError
        return Fault(rank=int(pairs["rank"]), step=int(pairs["step"]), kind=FaultKind(pairs["kind"]))
    except ValueError:
        raise ConfigError(
            f"fault {text!r} is not rank=R,step=S,kind=K with K one of: {kinds}",
            hint="for example rank=1,step=30,kind=sigkill",
        ) from None


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

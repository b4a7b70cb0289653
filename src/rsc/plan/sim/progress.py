"""How far an attempt is: work, checkpoints and restart as functions of the time since it started.

    restart_s | interval_s | write_s | interval_s | write_s | ...      (write_s is 0 where it does not block)

`lag_s` is the time from a snapshot until it is durable where the write does not block.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple


class Cadence(NamedTuple):
    restart_s: float
    interval_s: float
    """0: every moment is saved."""
    write_s: float
    lag_s: float


class Elapsed(NamedTuple):
    """Parts of the time since an attempt started; they add up to it."""

    restart_s: float
    write_s: float
    work_s: float
    saved_s: float
    """Part of work_s that a later attempt need not repeat."""


def wall_s(work_s: float, cadence: Cadence) -> float:
    """Time of an attempt that is not interrupted. No checkpoint follows the last interval."""
    if not cadence.interval_s or not cadence.write_s:
        return cadence.restart_s + work_s
    return cadence.restart_s + work_s + max(0, ceil(work_s / cadence.interval_s) - 1) * cadence.write_s


def split(elapsed_s: float, cadence: Cadence) -> Elapsed:
    """What an attempt has done with its first `elapsed_s`."""
    running = elapsed_s - cadence.restart_s
    if running <= 0:
        return Elapsed(elapsed_s, 0.0, 0.0, 0.0)
    interval = cadence.interval_s
    if not interval:
        return Elapsed(cadence.restart_s, 0.0, running, running)
    cycle = interval + cadence.write_s
    cycles, rest = divmod(running, cycle)
    writing = cycles * cadence.write_s + max(0.0, rest - interval)
    durable = max(0.0, (running - cadence.lag_s) // cycle)
    return Elapsed(cadence.restart_s, writing, running - writing, durable * interval)

"""The ends of the ranks of a node, as the process that started them sees them."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Self

POLL_S = 0.02
_LOOK_S = 0.2  # where the kernel tells of ends: looking every 20 ms took 1 % of a training step on two cores


class EndsOf:
    """Wakes who waits as soon as one of these child processes ends; elsewhere than on Linux, soon after."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors: list[int] = []
        with contextlib.suppress(OSError, AttributeError):  # an older kernel, or another system
            self._descriptors += map(os.pidfd_open, pids)

    def wait(self, files: Collection[int]) -> set[int]:
        """Sleep until a process ends or one of `files` can be read, a fifth of a second at most.

        Returns those that can be read.
        """
        timeout_s = _LOOK_S if self._descriptors else POLL_S
        readable, _, _ = select.select([*files, *self._descriptors], [], [], timeout_s)
        for descriptor in set(readable) & set(self._descriptors):  # it would be readable from now on
            self._descriptors.remove(descriptor)
            os.close(descriptor)
        return set(readable) & set(files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def ended(pids: Mapping[int, int]) -> dict[int, int]:
    """Exit codes of ranks that have ended (negative: signal), without taking them from their parent."""
    found = {}
    for rank, pid in pids.items():
        with contextlib.suppress(ChildProcessError):
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is not None:
                found[rank] = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
    return found


def still_there(pids: Mapping[int, int], *, patience_s: float) -> list[int]:
    """Ranks that have not ended after that time, of those that were sent SIGKILL."""
    deadline_s = time.monotonic() + patience_s
    while left := [rank for rank, pid in pids.items() if _is_there(pid)]:
        if time.monotonic() > deadline_s:
            break
        time.sleep(POLL_S)
    return left


def _is_there(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # its end was taken note of before
        return False

"""Who holds a key, and until when. A lease ends by word of its holder, by its holder's death, or by time.

Time is enforced: the process that holds an expired lease and still lives is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from dataclasses import dataclass, replace

from rsc.release.request import KeyRequest


class Process:
    """Another process: on Linux by a descriptor that stays with it even when its number is reused."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when it has gone already."""
        self.pid = pid
        if sys.platform == "linux":
            self._fd = os.pidfd_open(pid)
        else:
            os.kill(pid, 0)

    def is_alive(self) -> bool:
        if sys.platform == "linux":
            return not select.select([self._fd], [], [], 0)[0]
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "linux":
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        if sys.platform == "linux":
            os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Lease:
    number: int
    """Index of the release in the audit log."""
    request: KeyRequest
    holder: Process
    expires_s: float
    """On the clock that stands still while the machine sleeps: a suspended laptop kills no run."""


class Leases:
    """The table of live leases; threads of the agent share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[int, Lease] = {}

    def add(self, number: int, *, request: KeyRequest, pid: int, expires_s: float) -> Lease:
        """Raises ProcessLookupError when the holder has already gone."""
        lease = Lease(number, request, Process(pid), expires_s)
        with self._lock:
            self._live[number] = lease
        return lease

    def get(self, number: int) -> Lease | None:
        with self._lock:
            return self._live.get(number)

    def extend(self, number: int, *, expires_s: float) -> None:
        with self._lock:
            self._live[number] = replace(self._live[number], expires_s=expires_s)

    def end(self, number: int) -> Lease | None:
        """Take a lease out and close its descriptor; None when it had ended."""
        with self._lock:
            lease = self._live.pop(number, None)
        if lease is not None:
            lease.holder.close()
        return lease

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self._live.values())

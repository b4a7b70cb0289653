"""Who holds a key, and until when. A lease ends by word of its holder, by its holder's death, or by time.

Time is enforced: the process that holds an expired lease and still lives is killed. A lease covers what its
holder forked: what is left behind is killed when the lease ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rsc.release.agent.request import KeyRequest
from rsc.release.agent.sandboxes import Sandbox, end_orphans


class HolderProcess:
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
            watched = select.poll()  # select() knows no descriptor above 1023
            watched.register(self._fd, select.POLLIN)
            return not watched.poll(0)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Raises PermissionError for a process of another user."""
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
    holder: HolderProcess
    sandbox: Sandbox | None
    """Where the holder lives, and so what it may leave behind."""
    expires_s: float
    """On the clock that stands still while the machine sleeps: a suspended laptop kills no run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A lease that the agent ended."""

    number: int
    request: KeyRequest
    how: str


class Leases:
    """The table of live leases; threads of the agent share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[int, Lease] = {}
        self._mains: dict[int, int] = {}
        """Of each sandbox, by its top: the command that was started in it."""
        self._left: set[int] = set()
        """Tops of sandboxes in which a lease ended since they were last searched for orphans."""

    def add(
        self, number: int, *, request: KeyRequest, pid: int, expires_s: float, sandbox: Sandbox | None = None
    ) -> Lease:
        """Raises ProcessLookupError when the holder has already gone."""
        lease = Lease(number, request, HolderProcess(pid), sandbox, expires_s)
        with self._lock:
            self._live[number] = lease
            if sandbox is not None:
                self._mains.setdefault(sandbox.top, sandbox.main)
        return lease

    def get(self, number: int) -> Lease | None:
        with self._lock:
            return self._live.get(number)

    def extend(self, number: int, *, expires_s: float) -> None:
        with self._lock:
            self._live[number] = replace(self._live[number], expires_s=expires_s)

    def end(self, number: int) -> bool:
        """Take a lease out and close its descriptor; False when it had ended."""
        with self._lock:
            lease = self._live.pop(number, None)
            if lease is not None and lease.sandbox is not None:
                self._left.add(lease.sandbox.top)
        if lease is not None:
            lease.holder.close()
        return lease is not None

    def count(self, *, pid: int) -> int:
        """Leases of one process."""
        with self._lock:
            return sum(lease.holder.pid == pid for lease in self._live.values())

    def take_ended(self, *, now_s: float) -> list[Ended]:
        """Take out the leases whose holder has gone (`gone`) or whose time is over (`expired`: it is killed).

        A lease that was taken out is nobody else's: its descriptor cannot be closed, nor its number be
        given to another process's, between the look and the kill.
        """
        with self._lock:
            over = [
                lease
                for lease in self._live.values()
                if lease.expires_s <= now_s or not lease.holder.is_alive()
            ]
            for lease in over:
                del self._live[lease.number]
        ended = [(lease, _finish(lease.holder)) for lease in over]
        killed = self._end_orphans({lease.sandbox.top for lease in over if lease.sandbox is not None})
        return [Ended(lease.number, lease.request, how + _left_behind(lease, killed)) for lease, how in ended]

    def _end_orphans(self, tops: set[int]) -> dict[int, int]:
        """A lease covers what its holder forked: how many processes were killed, by top of their sandbox."""
        with self._lock:
            tops, self._left = tops | self._left, set()
            kept = {top: {self._mains[top]} for top in tops}
            for lease in self._live.values():
                if lease.sandbox is not None and lease.sandbox.top in kept:
                    kept[lease.sandbox.top].add(lease.sandbox.main)
        return {top: end_orphans(top, kept=mains) for top, mains in kept.items()}


def _left_behind(lease: Lease, killed: Mapping[int, int]) -> str:
    count = killed.get(lease.sandbox.top, 0) if lease.sandbox is not None else 0
    return f"; {count} processes that were left behind were killed" if count else ""


def _finish(holder: HolderProcess) -> str:
    """Kill a process that still lives, and let go of it; how it ended."""
    try:
        if not holder.is_alive():
            return "gone"
        holder.kill()
    except OSError as error:
        return f"expired, but its holder could not be killed: {error.strerror}"
    finally:
        holder.close()
    return "expired"

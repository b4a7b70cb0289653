"""Which processes stay behind when the holder of a key is gone, and their end.

A worker can fork, and a process that it forked holds a copy of its memory, keys included. When the worker
ends, such a process is handed to the first process of the sandbox (process 1 of its PID namespace; without
one, the launcher, which asked the kernel for orphans). So: whatever that process has as a child, but for the
command that it started and what live leases belong to, stayed behind, and is killed with all below it.

    launcher (process 1) -> supervisor -> ranks, which hold leases
                         -> orphan                        killed

A rank cannot hide one below the supervisor: CLONE_PARENT is filtered (cluster/sandbox/seccomp.py).

Not covered: workers with the isolation `none`, which nothing is above; systems without /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

_ROUNDS = 50  # of killing children and looking again; then the whole sandbox goes
_ROUND_S = 0.01


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where a holder lives."""

    top: int
    """The process that gets the orphans."""
    main: int
    """Its child that the holder is below, or is."""


def sandbox_of(pid: int, *, controllers: int = 0) -> Sandbox | None:
    """None where no process of ours is above it that would get its orphans. `controllers`: see Served; what
    such a one has as children are the launchers of other nodes."""
    try:
        line = list(_line_of(pid))
        if len(_numbers(pid)) > len(_numbers(os.getpid())):  # process 1 of its namespace is above it
            top = next(place for place, each in enumerate(line) if _numbers(each)[-1] == 1)
            inside = line[: top + 1]
        else:  # no PID namespace: what this process started, down to the holder
            inside = line[: line.index(os.getpid()) - controllers]
    except (OSError, ValueError, StopIteration):
        return None
    return Sandbox(top=inside[-1], main=inside[-2]) if len(inside) > 1 else None


def end_orphans(top: int, *, kept: Set[int]) -> int:
    """Kill every child of `top` but `kept`, and whatever they leave behind; how many that were."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        orphans = orphans_of(top, kept=kept)
        if not orphans:
            return len(killed)
        for pid in orphans:
            _kill(pid, child_of=top)
        killed.update(orphans)
        time.sleep(_ROUND_S)
    with contextlib.suppress(OSError):
        os.kill(top, signal.SIGKILL)  # they are made faster than they end: the sandbox ends
    return len(killed)


def orphans_of(top: int, *, kept: Set[int]) -> list[int]:
    """Living children of `top` but `kept`."""
    return [pid for pid in _children(top) if pid not in kept and not _has_ended(pid)]


def _kill(pid: int, *, child_of: int) -> None:
    """By a descriptor, so that a number that was given away meanwhile is not hit."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.pidfd_open(pid)
        try:
            if _parent(pid) == child_of:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _line_of(pid: int) -> Iterator[int]:
    """The process, its parent, and so on up."""
    while pid > 0:
        yield pid
        pid = _parent(pid)


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _has_ended(pid: int) -> bool:
    try:
        return _stat(pid)[0] in ("Z", "X")
    except OSError:
        return True


def _stat(pid: int) -> list[str]:
    """Fields of proc(5) after the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    if texts:
        return [int(number) for text in texts for number in text.split()]
    found = []
    for path in Path("/proc").glob("[0-9]*"):  # a kernel without CONFIG_PROC_CHILDREN
        with contextlib.suppress(OSError, ValueError):
            if _parent(int(path.name)) == pid:
                found.append(int(path.name))
    return found


def _numbers(pid: int) -> list[int]:
    """Its numbers in this PID namespace and those below, down to its own. Anybody may read them; not so
    `/proc/PID/ns` of a process that hides its memory."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return [pid]

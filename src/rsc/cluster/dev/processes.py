"""The processes of a private cluster, found by what the kernel shows of them, and ended.

No list of process ids is kept: a program that is killed between a start and a note would leave a process that
nobody knows. A process belongs to a cluster when its command line or its environment names the cluster's
folder (every daemon is started so), when it has a file there open as slurmstepd has, or when it descends from
one that does.

Not covered: a program of a job that detaches from its parents, clears its environment and hides it; with
--namespaces it ends too, with the namespace of its processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "RSC_DEV_CLUSTER"
"""Environment variable of every process of a cluster: its folder."""
_POLL_S = 0.02


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: str
    environment: tuple[str, ...]
    """Empty where it belongs to somebody else, or is not dumpable."""
    files: tuple[str, ...] = ()
    """Of slurmstepd: what it has open. It leaves slurmd, outlives it, and writes its title over its
    environment; the log of its node stays open in it."""

    def names(self, folder: Path) -> bool:
        """Whether it was started for the cluster in that folder."""
        if any(path.startswith(f"{folder}/") for path in self.files):
            return True
        return f"{MARK}={folder}" in self.environment or f"{folder}/" in f"{self.command}/"

    def is_of_node(self, name: str) -> bool:
        """A daemon of a node, or what that started."""
        if any(f"/slurmd-{name}.log" in path for path in self.files):
            return True
        return f"SLURMD_NODENAME={name}" in self.environment or f"RSC_DEV_NODE={name}" in self.environment


def of_cluster(folder: Path) -> list[Process]:
    """Every process of the cluster but this one and those that it descends from."""
    every = _look()
    spared = _ancestors(os.getpid(), every)
    marked = {pid for pid, each in every.items() if pid not in spared and each.names(folder)}
    return [every[pid] for pid in _with_descendants(marked, every) - spared]


def of_node(folder: Path, name: str) -> list[Process]:
    """The daemon of a node, the jobs that run there, and all that those started."""
    every = _look()
    spared = _ancestors(os.getpid(), every)
    of_node = {each.pid for each in of_cluster(folder) if each.is_of_node(name)}
    return [every[pid] for pid in _with_descendants(of_node, every) - spared if pid in every]


def end(processes: Iterable[Process], *, number: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)


def end_all(find: Callable[[], list[Process]], *, patience_s: float = 10.0) -> list[Process]:
    """SIGKILL until none is found, since one may be starting another; returns those that the kernel keeps."""
    deadline_s = time.monotonic() + patience_s
    while (left := find()) and time.monotonic() < deadline_s:
        end(left)
        time.sleep(_POLL_S)
    return left


def _with_descendants(pids: set[int], every: dict[int, Process]) -> set[int]:
    found = set(pids)
    grows = True
    while grows:
        more = {pid for pid, each in every.items() if each.parent in found and pid not in found}
        grows = bool(more)
        found |= more
    return found


def _ancestors(pid: int, every: dict[int, Process]) -> set[int]:
    found = set()
    while pid in every:
        found.add(pid)
        pid = every[pid].parent
    return found


def _look() -> dict[int, Process]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            pid = int(folder.name)
            files = _open_files(folder) if command.startswith("slurmstepd") else ()
            found[pid] = Process(pid, int(parent), command, _environment(folder), files)
    return found


def _open_files(folder: Path) -> tuple[str, ...]:
    found = []
    with contextlib.suppress(OSError):
        for link in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()))
    return tuple(found)


def _environment(folder: Path) -> tuple[str, ...]:
    try:
        return tuple((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return ()

"""What each job on a node will use next, written down where the others can read it.

A plan is one small file in the cache's folder: the next chunks of one job in order, each with the moment of
its next use on the clock that all processes of a node share (CLOCK_MONOTONIC). Its owner holds a lock on
`<plan>.lock`; plans of dead processes are ignored and removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

_ENTRY = np.dtype([("name", "S80"), ("next_use_s", "<f8")])  # name: 64 hex digits, a dot, a number


class ReadPlan:
    """One job's plan. It counts until `close`, or until the process dies."""

    def __init__(self, folder: Path) -> None:
        plans = folder / "plans"
        plans.mkdir(exist_ok=True, mode=0o700)
        self._path = plans / secrets.token_hex(8)
        self._lock = _hold(_lock_path(self._path))

    def publish(self, next_use_s: Mapping[str, float]) -> None:
        """Replace what was published before."""
        self.publish_packed(pack_plan(next_use_s))

    def publish_packed(self, packed: bytes) -> None:
        """As `publish`, for what `pack_plan` made in another process."""
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(packed)
        temporary.rename(self._path)

    def close(self) -> None:
        _remove(self._path)
        os.close(self._lock)


def pack_plan(next_use_s: Mapping[str, float]) -> bytes:
    """88 bytes a chunk."""
    return np.array([(name.encode(), use_s) for name, use_s in next_use_s.items()], _ENTRY).tobytes()


def read_plans(folder: Path) -> list[dict[str, float]]:
    """The plans of living processes, by chunk name."""
    found = []
    for lock in sorted((folder / "plans").glob("*.lock")):
        path = lock.with_suffix("")
        if _remove_if_dead(path):
            continue
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            entries = np.frombuffer(data[: len(data) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
            found.append({entry["name"].decode(): float(entry["next_use_s"]) for entry in entries})
    return found


def _hold(lock: Path) -> int:
    """A new lock file, held. Until then another process may take it for a dead one's and remove it."""
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), lock.stat()):
                return fd
        os.close(fd)


def _remove_if_dead(path: Path) -> bool:
    """Whether nobody holds the plan's lock any more; then its files go while we hold it."""
    try:
        fd = os.open(_lock_path(path), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _remove(path: Path) -> None:
    for each in (path, path.with_suffix(".new"), _lock_path(path)):
        each.unlink(missing_ok=True)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")

"""A disk that fails at a chosen call: the process dies, the power goes, or the disk is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from rsc.store.bulk.local import RealDisk

Fault = Literal["kill", "power", "full"]


class Killed(BaseException):
    """Stands for kill -9: nothing in the process runs after it, so every later call raises it again."""


class FaultyDisk(RealDisk):
    """Counts the calls that change something and fails at number `fail_at` (from 0), or never.

    kill    half of a write happens, then the process is gone; what was written stays
    power   as kill; then `lose_unsynced` takes away what no sync had made durable
    full    ENOSPC from that call on for whatever needs space; the process lives and may clean up
    """

    def __init__(self, *, fail_at: int | None = None, fault: Fault = "kill") -> None:
        self.calls = 0
        self._fail_at = fail_at
        self._fault = fault
        self._paths: dict[int, Path] = {}
        self._unsynced: set[Path] = set()
        self._unsynced_names: list[tuple[Path, Path]] = []

    def create(self, path: Path) -> int:
        self._step(needs_space=True)
        fd = super().create(path)
        self._paths[fd] = path
        self._unsynced.add(path)
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        try:
            self._step(needs_space=True)
        except Killed:
            if self.calls == (self._fail_at or 0) + 1:
                super().write(fd, data[: len(data) // 2])
            raise
        self._unsynced.add(self._paths[fd])
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step(needs_space=True)
        self._unsynced.discard(self._paths[fd])

    def close(self, fd: int) -> None:
        super().close(fd)

    def mkdir(self, path: Path) -> None:
        self._step(needs_space=True)
        super().mkdir(path)

    def link(self, source: Path, target: Path) -> None:
        self._step(needs_space=True)
        super().link(source, target)
        self._renamed(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._step(needs_space=False)
        super().rename(source, target)
        self._renamed(source, target)

    def unlink(self, path: Path) -> None:
        self._step(needs_space=False)
        super().unlink(path)
        self._unsynced.discard(path)

    def remove_tree(self, folder: Path) -> None:
        self._step(needs_space=False)
        super().remove_tree(folder)

    def sync_folder(self, folder: Path) -> None:
        self._step(needs_space=False)
        self._unsynced_names = [pair for pair in self._unsynced_names if pair[1].parent != folder]

    def lose_unsynced(self, *, names: Literal["kept", "lost", "older lost"]) -> None:
        """What a power cut may do: contents without a sync are cut to half. Of the renames whose folder was
        not synced all survive, or none, or only the latest: a file system may write names in any order."""
        for path in self._unsynced:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        lost = {"kept": [], "lost": self._unsynced_names, "older lost": self._unsynced_names[:-1]}[names]
        for source, target in reversed(lost):
            if target.exists() and not source.exists():
                target.rename(source)

    def _step(self, *, needs_space: bool) -> None:
        number = self.calls
        self.calls += 1
        if self._fail_at is None or number < self._fail_at:
            return
        if self._fault != "full":
            raise Killed
        if needs_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _renamed(self, source: Path, target: Path) -> None:
        def now(path: Path) -> Path:
            return target / path.relative_to(source) if path.is_relative_to(source) else path

        self._unsynced = {now(path) for path in self._unsynced}
        self._unsynced_names = [(now(old), now(new)) for old, new in self._unsynced_names]
        self._unsynced_names.append((source, target))

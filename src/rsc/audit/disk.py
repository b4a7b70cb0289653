"""The few file operations that the log is built from, each durable when it returns.

Everything the log writes goes through `Disk`, so that a test can stop the machine at any of them
(tests/audit/crash_disk.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from rsc.durable import replace_file, sync_folder, write_all


class LogDisk(Protocol):
    """Paths are relative, with slashes."""

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int | None:
        """In bytes; None where there is no file."""
        ...

    def append(self, path: str, data: bytes) -> None:
        """Add to the end. A crash can leave any part of `data` there, with holes of zeros."""
        ...

    def truncate(self, path: str, size: int) -> None: ...

    def put(self, path: str, data: bytes) -> None:
        """Create or replace as a whole: after a crash the old or the new file is there."""
        ...

    def put_many(self, files: Mapping[str, bytes]) -> None:
        """Write files that nobody reads yet. After a crash any of them may be missing or broken."""
        ...

    def delete_folder(self, path: str) -> None: ...

    def lock(self) -> AbstractContextManager[None]:
        """Held by one process at a time. Not for threads."""
        ...


class LocalDisk:
    """A folder (mode 0700) on a local file system. Files are 0600 unless `public` names them.

    Not covered: NFS and other file systems where `fdatasync` or `flock` do less than they say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = f"{folder}/"  # joining text is ten times quicker than joining paths
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, path: str, *, offset: int = 0) -> bytes:
        with open(self._start + path, "rb") as file:
            file.seek(offset)
            return file.read()

    def size(self, path: str) -> int | None:
        try:
            return os.stat(self._start + path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return None

    def append(self, path: str, data: bytes) -> None:
        fd = os.open(self._start + path, os.O_WRONLY | os.O_APPEND)
        try:
            write_all(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def truncate(self, path: str, size: int) -> None:
        fd = os.open(self._folder / path, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def put(self, path: str, data: bytes) -> None:
        target = self._folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(target, data)

    def put_many(self, files: Mapping[str, bytes]) -> None:
        folders: set[Path] = set()
        for path, data in files.items():
            target = self._folder / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_file(target, data)
            folders.update(target.parents[: len(Path(path).parents)])
        for folder in folders:
            sync_folder(folder)

    def delete_folder(self, path: str) -> None:
        shutil.rmtree(self._folder / path, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        fd = os.open(self._start + "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _write_file(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)

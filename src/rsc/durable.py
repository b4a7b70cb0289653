"""Files that appear whole or not at all, and are still there after a loss of power.

Every record that decides something is written like this: a new file beside it, synced, renamed into its
place, and the folder synced, since a rename is a change of the folder.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, data: bytes | bytearray, *, mode: int = 0o600) -> None:
    """Put `data` at `path`, whatever was there; a reader sees the old bytes or the new ones.

    Two processes may do it at once: the last one stands. Raises OSError, and then leaves nothing beside.
    """
    staged = _staged(path)
    try:
        _write_new(staged, data, mode=mode)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path, data: bytes | bytearray, *, mode: int = 0o600) -> bool:
    """Put `data` at `path` where nothing is yet. False: another process was faster, and its file stays."""
    staged = _staged(path)
    try:
        _write_new(staged, data, mode=mode)
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """A write may take less than it was given: go on with the rest."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Make names that were made, changed or removed in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _staged(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write_new(path: Path, data: bytes | bytearray, *, mode: int) -> None:
    """A leftover of a process of this number that died goes, and so does a link or a FIFO in its place."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)

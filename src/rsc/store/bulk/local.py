"""Bulk storage in a folder of a local or shared POSIX file system.

A file is written under a temporary name in its own folder, synced, and linked or renamed into place, and
then the folder is synced: after a crash a name holds the whole file or does not exist. `Disk` is the thin
layer under it where tests cut the power.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from rsc.errors import IntegrityError, ResourceError
from rsc.store.bulk.outbox import ALIGNMENT

_TEMPORARY = ".part-"
_DIRECT_BYTES = 1 << 20  # smaller files are read again soon and cost little
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux has it
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}


class Disk(Protocol):
    """The calls that change a file system, one by one."""

    def create(self, path: Path) -> int: ...
    def write(self, fd: int, data: memoryview) -> int: ...
    def bypass_cache(self, fd: int, on: bool) -> bool: ...
    def sync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def mkdir(self, path: Path) -> None: ...
    def link(self, source: Path, target: Path) -> None: ...
    def rename(self, source: Path, target: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def remove_tree(self, folder: Path) -> None: ...
    def sync_folder(self, folder: Path) -> None: ...


class RealDisk:
    """The operating system's calls."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def bypass_cache(self, fd: int, on: bool) -> bool:
        """Write to the disk from our memory (O_DIRECT), or no more; False where this cannot be."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | _O_DIRECT if on else flags & ~_O_DIRECT)
        except OSError:
            return False
        return bool(_O_DIRECT)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def remove_tree(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class LocalStore:
    """A `BulkStore` below `root`, which is made at the first write.

    With `mapped`, files are read through a memory map, which saves a copy (0.27 instead of 0.35 CPU seconds
    a GB, decryption of frames of 512 KiB included). A file that was cut short is noticed at the next read
    (asking its size costs 2 % of that). Not covered: a file that is cut short, or a disk that fails, in the
    tenth of a millisecond while a frame is read from the map ends the process with SIGBUS, so use it for
    files that only this program writes.
    """

    renames_folders = True

    def __init__(self, root: Path, *, disk: Disk | None = None, mapped: bool = False) -> None:
        self.root = root
        self._mapped = mapped
        self._disk = disk or RealDisk()

    def create(self, path: str) -> LocalFile:
        target = self.root / path
        with _resource_errors(target):
            self._make_folders(target.parent)
            return LocalFile(target, disk=self._disk)

    def put(self, path: str, data: bytes) -> None:
        self._put(path, data, replace=True)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self._put(path, data, replace=False)

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        return MappedReader(self.root / path) if self._mapped else LocalReader(self.root / path)

    def walk(self, folder: str) -> Iterator[str]:
        for path in sorted((self.root / folder).rglob("*")):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def children(self, folder: str) -> list[str]:
        try:
            names = [path.name for path in (self.root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not self._is_temporary(name))

    def delete(self, path: str) -> None:
        with _resource_errors(self.root / path), suppress(FileNotFoundError):
            self._disk.unlink(self.root / path)
            self._disk.sync_folder((self.root / path).parent)

    def delete_folder(self, folder: str) -> None:
        with _resource_errors(self.root / folder), suppress(FileNotFoundError):
            self._disk.remove_tree(self.root / folder)
            self._disk.sync_folder((self.root / folder).parent)

    def publish(self, staging: str, target: str) -> bool:
        source, goal = self.root / staging, self.root / target
        with _resource_errors(goal):
            try:
                self._disk.rename(source, goal)
            except OSError as error:
                if error.errno in _TAKEN:
                    return False
                raise
            self._disk.sync_folder(goal.parent)
        return True

    def _is_temporary(self, name: str) -> bool:
        return name.startswith(_TEMPORARY)

    def _put(self, path: str, data: bytes, *, replace: bool) -> bool:
        file = self.create(path)
        try:
            file.write(memoryview(data))
            return file.commit_as(replace=replace)
        finally:
            file.discard()

    def _make_folders(self, folder: Path) -> None:
        """Make what is missing, outermost first, each made durable in its parent."""
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for path in reversed(missing):
            with suppress(FileExistsError):
                self._disk.mkdir(path)
            self._disk.sync_folder(path.parent)


class LocalFile:
    """A file under a temporary name until `commit`.

    Large pieces of aligned memory bypass the page cache where the file system can: what an import writes is
    rarely read soon, and filling fresh pages of the cache took 0.4 to 5 GB per CPU second where writing past
    it took 11 to 16 (ext4 on a virtual disk; reserving the space first changed neither).
    """

    def __init__(self, target: Path, *, disk: Disk) -> None:
        self._target = target
        self._disk = disk
        self._temporary = target.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        self._fd: int | None = disk.create(self._temporary)
        self._size_bytes = 0
        self._is_direct = False
        self._may_be_direct = True

    def write(self, data: memoryview, /) -> None:
        view = data.cast("B")
        with _resource_errors(self._target):
            while view:
                done = self._write_some(view)
                self._size_bytes += done
                view = view[done:]

    def _write_some(self, view: memoryview) -> int:
        assert self._fd is not None, "write after commit or discard"
        wanted = self._may_be_direct and self._size_bytes % ALIGNMENT == 0 and _is_large_and_aligned(view)
        if wanted != self._is_direct:
            self._may_be_direct = self._disk.bypass_cache(self._fd, wanted)
            self._is_direct = wanted and self._may_be_direct
        try:
            return self._disk.write(self._fd, view)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct:
                raise
        self._may_be_direct = False  # a disk that wants more than pages aligned
        return self._write_some(view)

    def commit(self) -> None:
        self.commit_as(replace=True)

    def commit_as(self, *, replace: bool) -> bool:
        """Sync, name, sync the folder. Without `replace`: False and no change when the name is taken."""
        assert self._fd is not None, "commit twice"
        with _resource_errors(self._target):
            self._disk.sync(self._fd)
            if replace:
                self._disk.rename(self._temporary, self._target)
            else:
                try:
                    self._disk.link(self._temporary, self._target)
                except FileExistsError:
                    return False
                self._disk.unlink(self._temporary)
            self._close()
            self._disk.sync_folder(self._target.parent)
        return True

    def discard(self) -> None:
        if self._fd is None:
            return
        self._close()
        with suppress(OSError):
            self._disk.unlink(self._temporary)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        assert fd is not None
        self._disk.close(fd)


class LocalReader:
    """`RandomAccess` by pread on one descriptor; an unlinked file stays readable until `close`.

    One that is dropped closes itself: an ordinary user may hold 1,024 descriptors.
    """

    _fd = -1

    def __init__(self, path: Path) -> None:
        self._take(os.open(path, os.O_RDONLY | os.O_CLOEXEC), name=path.name)

    @classmethod
    def of(cls, fd: int, *, name: str) -> LocalReader:
        """A reader of an open file, whose descriptor it closes."""
        reader = LocalReader.__new__(LocalReader)
        reader._take(fd, name=name)
        return reader

    def _take(self, fd: int, *, name: str) -> None:
        self._name, self._fd = name, fd
        self.size_bytes = os.fstat(fd).st_size

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer)
        while view:
            done = os.preadv(self._fd, [view], offset)
            if done == 0:
                raise self._too_short(offset + len(view))
            view, offset = view[done:], offset + done

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _too_short(self, stop: int) -> IntegrityError:
        message = f"{self._name} ends before byte {stop}"
        return IntegrityError(message, outcome="truncated")


class MappedReader(LocalReader):
    """A `LocalReader` that also shows its bytes in place. An empty file has nothing to map.

    A map has a descriptor of its own, so the reader's is closed: one for each of the many shards of a loader.
    """

    _map: mmap.mmap | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if self.size_bytes:
            self._map = mmap.mmap(self._fd, self.size_bytes, prot=mmap.PROT_READ)
        super().close()

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer)
        view[:] = self.view(offset, len(view))

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Asks for the size each time: touching a map beyond the file's end is not an error but the end."""
        now_bytes = self._map.size() if self._map is not None else 0
        if offset + size_bytes > min(self.size_bytes, now_bytes):
            raise self._too_short(offset + size_bytes)
        return memoryview(self._map or b"")[offset : offset + size_bytes]

    def close(self) -> None:
        """The map itself goes with the last view of it."""
        self._map = None
        super().close()


def _is_large_and_aligned(view: memoryview) -> bool:
    if len(view) < _DIRECT_BYTES or len(view) % ALIGNMENT:
        return False
    return int(np.frombuffer(view, np.uint8).ctypes.data) % ALIGNMENT == 0


@contextmanager
def _resource_errors(path: Path) -> Iterator[None]:
    """Say what a full or failing disk means; a missing file stays FileNotFoundError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        hint = None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"free space on the file system of {path.parent} and start again; nothing was published"
        raise ResourceError(
            f"cannot write {path.name}: {error.strerror}", hint=hint, errno=error.errno
        ) from error

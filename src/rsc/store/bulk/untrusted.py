"""A folder of this machine in which untrusted code writes too, as a `BulkStore`: checkpoints of a run.

Reading, writing, listing and deleting go through descriptors from the folder down (rsc/untrusted.py). A link,
a FIFO or a device in the place of a file is a damaged file: IntegrityError, as for bytes that are none of a
container. Deleting removes what was planted, and never what it leads to.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rsc.errors import DataError, IntegrityError
from rsc.store.bulk.local import LocalReader, LocalStore, RealDisk
from rsc.untrusted import UntrustedFolder, create_at


class UntrustedStore(LocalStore):
    def __init__(self, run: Path, folder: str) -> None:
        """`run` itself is ours; `folder`, the part of it that is this store, and all below need not be."""
        self._files = UntrustedFolder(run)
        self._folder = folder
        super().__init__(run / folder, disk=_DiskBeneath(self._files))

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        with _damage():
            return LocalReader.of(self._files.open(f"{self._folder}/{path}"), name=path)

    def children(self, folder: str) -> list[str]:
        with _damage():
            names = self._files.children(f"{self._folder}/{folder}")
        return [name for name in names if not self._is_temporary(name)]

    def walk(self, folder: str) -> Iterator[str]:
        for name in self.children(folder):
            path = f"{folder}/{name}" if folder else name
            with self._files.folder_of(f"{self._folder}/{path}") as (fd, last):
                mode = os.stat(last, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from self.walk(path)
            elif stat.S_ISREG(mode):
                yield path

    def _make_folders(self, folder: Path) -> None:
        with _damage(), self._files.folder(folder.relative_to(self._files.root).as_posix(), make=True):
            pass


class _DiskBeneath(RealDisk):
    """The same calls, each through the descriptor of the folder that it changes."""

    def __init__(self, files: UntrustedFolder) -> None:
        self._files = files

    def create(self, path: Path) -> int:
        with self._at(path) as (folder, name):
            return create_at(folder, name)

    def link(self, source: Path, target: Path) -> None:
        with self._at(source) as (folder, name):
            os.link(name, target.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)

    def rename(self, source: Path, target: Path) -> None:
        with self._at(source) as (folder, name):
            os.rename(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)

    def unlink(self, path: Path) -> None:
        with self._at(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_tree(self, folder: Path) -> None:
        with _damage():
            self._files.remove_tree(folder.relative_to(self._files.root).as_posix())

    def sync_folder(self, folder: Path) -> None:
        with _damage(), self._files.folder(folder.relative_to(self._files.root).as_posix()) as fd:
            os.fsync(fd)

    @contextlib.contextmanager
    def _at(self, path: Path) -> Iterator[tuple[int, str]]:
        with _damage(), self._files.folder_of(path.relative_to(self._files.root).as_posix()) as found:
            yield found


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise IntegrityError(error.message, hint=error.hint, outcome="header") from None

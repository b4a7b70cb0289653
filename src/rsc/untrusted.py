"""Files below a folder that untrusted code can write: opened beneath it, without following what was planted.

    run = UntrustedFolder(runs / name)         the folder itself is ours; what lies in it need not be
    run.read("logs/rank0.log", limit_bytes=..)

Code that trains on private data writes into its run folder, and whatever reads there runs outside the
sandbox, with the user's rights. So every step of a path is opened by descriptor from the folder down
(O_NOFOLLOW), which no link and no rename in between can lead elsewhere, and only regular files are read: a
FIFO would wait for ever, a device may act when it is opened. A file with a further name in another folder
is refused too: it can be any file of this user. Deleting and replacing go through the same descriptors.

`openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)` promises the same in one call; paths here have three parts,
and this way is the same on kernels and systems that do not have it.

Not covered: a mount below the folder, which only root can make outside a sandbox; what the bytes say.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rsc.errors import DataError

SMALL_BYTES = 16 << 20
"""Limit for a file that RSC writes as one JSON or TOML document; ours have some kilobytes."""
_MOST_ENTRIES = 100_000  # of a folder: one of checkpoints has as many as ranks
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
_PLANTED = (
    "RSC writes plain files there: the code that trained may have put it there; look before you remove it"
)


@dataclass(frozen=True)
class UntrustedFolder:
    """Every path is relative to `root`, with `/`. Missing files are FileNotFoundError; whatever is not a
    plain file or folder where one must be is DataError."""

    root: Path

    def open(self, path: str) -> int:
        """A descriptor for reading a regular file. The caller closes it."""
        with self.folder_of(path) as (folder, name):
            # before it is opened: some devices act when they are
            self._require_plain(os.stat(name, dir_fd=folder, follow_symlinks=False), path)
            fd = self._open_at(folder, name, flags=_FILE, path=path)
            try:
                self._require_ours(fd, folder, path=path)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def open_to_append(self, path: str) -> int:
        """A descriptor that reads, and appends; the file is made where it is missing."""
        with self.folder_of(path, make=True) as (folder, name):
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = self._open_at(folder, name, flags=flags, path=path)
            try:
                self._require_ours(fd, folder, path=path)
            except BaseException:
                os.close(fd)
                raise
            return fd

    def read(self, path: str, *, limit_bytes: int = SMALL_BYTES) -> bytes:
        """The whole of a file. Raises DataError above the limit, before anything is read."""
        fd = self.open(path)
        with os.fdopen(fd, "rb") as file:
            self.require_at_most(os.fstat(fd).st_size, limit_bytes, path=path)
            data = file.read(limit_bytes + 1)
        self.require_at_most(len(data), limit_bytes, path=path)  # it grew meanwhile
        return data

    def read_end(self, path: str, *, size_bytes: int) -> tuple[bytes, bool]:
        """The last bytes of a file, and whether that is the whole of it."""
        fd = self.open(path)
        try:
            start = max(0, os.fstat(fd).st_size - size_bytes)
            return os.pread(fd, size_bytes, start), start == 0
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        """Whether a regular file is there. Raises DataError for anything else at its place."""
        try:
            os.close(self.open(path))
        except FileNotFoundError:
            return False
        return True

    def children(self, path: str = "") -> list[str]:
        """Names in a folder, sorted; none where there is no folder."""
        try:
            with self.folder(path) as fd, os.scandir(fd) as entries:
                names = []
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > _MOST_ENTRIES:
                        raise DataError(f"{path} in {self.root} has more than {_MOST_ENTRIES:,} entries")
        except FileNotFoundError:
            return []
        return sorted(names)

    def folders(self, path: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; links to folders are none."""
        found = []
        for name in self.children(path):
            with self.folder(path) as fd, suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    found.append(name)
        return found

    def size_bytes(self, path: str = "") -> int:
        """Bytes of the regular files below a folder; 0 where there is none."""
        total = 0
        with suppress(FileNotFoundError), self.folder(path) as top:
            for _, _, names, fd in os.fwalk(".", dir_fd=top, follow_symlinks=False):
                for name in names:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    total += found.st_size if stat.S_ISREG(found.st_mode) else 0
        return total

    def remove_tree(self, path: str) -> None:
        """Remove a folder with all that is in it, or whatever lies in its place; links are not followed."""
        with self.folder_of(path) as (folder, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def folder_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """(descriptor of the folder that holds it, name in there)."""
        above, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise DataError(f"{path!r} names no file")
        with self.folder(above, make=make) as fd:
            yield fd, name

    @contextmanager
    def folder(self, path: str = "", *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder; `make`: what is missing of the path is made."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in PurePosixPath(path).parts:
                if part in ("..", "/"):
                    raise DataError(f"{path!r} leads out of its folder")
                if make:
                    _make_at(fd, part)
                inner = self._open_at(fd, part, flags=_FOLDER, path=path)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def require_at_most(self, size_bytes: int, limit_bytes: int, *, path: str) -> None:
        if size_bytes > limit_bytes:
            raise DataError(
                f"{path} in {self.root} has {size_bytes:,} bytes; at most {limit_bytes:,} are read",
                hint=_PLANTED,
            )

    def _open_at(self, folder: int, name: str, *, flags: int, path: str) -> int:
        try:
            return os.open(name, flags, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.EMLINK):
                raise
            is_folder = bool(flags & os.O_DIRECTORY)
            self._refuse(os.stat(name, dir_fd=folder, follow_symlinks=False), path, is_folder=is_folder)
            raise  # it was exchanged between the two looks

    def _require_ours(self, fd: int, folder: int, *, path: str) -> None:
        """An opened file is a plain one, and no other file of the user under a second name."""
        found = os.fstat(fd)
        self._require_plain(found, path)
        if found.st_nlink > 1 and not _has_all_names_here(fd, folder):
            raise DataError(f"{path} in {self.root} has another name elsewhere (a hard link)", hint=_PLANTED)

    def _require_plain(self, found: os.stat_result, path: str) -> None:
        if not stat.S_ISREG(found.st_mode):
            self._refuse(found, path, is_folder=False)

    def _refuse(self, found: os.stat_result, path: str, *, is_folder: bool) -> None:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a file")
        wanted = "a folder" if is_folder else "a plain file"
        raise DataError(f"{path} in {self.root} is {kind}, not {wanted}", hint=_PLANTED)


def printable(text: str, *, keep: str = "\n\t") -> str:
    """Text for a screen: control characters, escapes and what turns the direction of writing are shown as
    `\\x1b`. With an empty `keep` it stays on its line, and so cannot pass for another."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"


def create_at(folder: int, name: str) -> int:
    """A new file for writing. Raises FileExistsError for anything at its place, a dangling link too."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)


def _make_at(folder: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return
    os.fsync(folder)


def _has_all_names_here(file: int, folder: int) -> bool:
    """Whether every hard link of an open file lies in this folder. A writer that commits by linking leaves a
    second name beside the first for a moment, and for good where it was killed in between."""
    found = os.fstat(file)
    with os.scandir(folder) as entries:
        names = sum(entry.inode() == found.st_ino and not entry.is_symlink() for entry in entries)
    return os.fstat(file).st_nlink <= names

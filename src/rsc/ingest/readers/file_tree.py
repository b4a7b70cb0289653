"""A folder, a zip archive or a single file as one sorted list of files, read one at a time."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rsc.errors import DataError
from rsc.ingest.readers.source import Part

_END_BYTES = 22  # of a zip's end mark before its comment (APPNOTE 4.3.16)
MAX_FILE_BYTES = 512 << 20  # of a record's file: a frame holds 1 GiB, and each process one file at a time


@dataclass(frozen=True)
class TreeEntry:
    """One file: its path inside the tree with `/`, and its size once unpacked.

    `member` is its number in the archive's list, where two members may have one name.
    """

    name: str
    size_bytes: int
    member: int = 0

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    @property
    def folders(self) -> tuple[str, ...]:
        return PurePosixPath(self.name).parts[:-1]


@dataclass
class Tree:
    """Hidden files and folders, and what archive programs leave behind, are not part of it.

    The list is in order of names, so that it does not depend on the file system; members of one name
    keep the archive's order. The archive is opened once per process and never extracted to disk.
    """

    root: Path
    _entries: list[TreeEntry] | None = field(default=None, init=False, repr=False)
    _archive: zipfile.ZipFile | None = field(default=None, init=False, repr=False)
    _num_links: int = field(default=0, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None}

    def entries(self) -> list[TreeEntry]:
        """Raises DataError for a damaged or encrypted archive, and for a folder that cannot be read."""
        if self._entries is None:
            found = self._in_archive() if self._is_archive else self._in_folder()
            self._entries = sorted(
                (entry for entry in found if _is_wanted(entry)), key=lambda entry: entry.name
            )
        return self._entries

    def files(self) -> list[Path]:
        """What has to stay unchanged: the archive, or every file of the folder."""
        if self.root.is_file():
            return [self.root]
        return [self.root / entry.name for entry in self.entries()]

    @property
    def num_links(self) -> int:
        """Links to folders, which are not followed (they may lead in circles), and links to nothing."""
        self.entries()
        return self._num_links

    def read(self, entry: TreeEntry) -> bytes:
        """All bytes of one file. Raises DataError when it is too large to be a record, or damaged."""
        if entry.size_bytes > MAX_FILE_BYTES:  # a zip bomb too: members unpack to what they say
            raise DataError(f"{entry.size_bytes} bytes in one file: too long for a record")
        if not self._is_archive:
            return (self.root if self.root.is_file() else self.root / entry.name).read_bytes()
        try:
            archive = self._open()
            return archive.read(archive.infolist()[entry.member])
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            told = "its checksum does not fit" if "CRC" in str(error) else str(error)
        except (zlib.error, lzma.LZMAError, EOFError, OSError):
            told = "its packed bytes are damaged"
        raise DataError(f"cannot be unpacked: {told}")

    def beginning(self, entry: TreeEntry, *, size_bytes: int = 1 << 14) -> bytes:
        """The first bytes of one file; none where they cannot be read, which `read` tells."""
        try:
            if not self._is_archive:
                with (self.root if self.root.is_file() else self.root / entry.name).open("rb") as file:
                    return file.read(size_bytes)
            archive = self._open()
            with archive.open(archive.infolist()[entry.member]) as member:
                return member.read(size_bytes)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            OSError,
        ):
            return b""

    @property
    def _is_archive(self) -> bool:
        return self.root.suffix.lower() == ".zip" and self.root.is_file()

    def _in_folder(self) -> Iterator[TreeEntry]:
        if self.root.is_file():
            yield TreeEntry(self.root.name, self.root.stat().st_size)
            return
        for folder, folders, names in os.walk(self.root, onerror=_refuse):
            self._num_links += sum(Path(folder, name).is_symlink() for name in folders)
            for path in (Path(folder, name) for name in names):
                if path.is_file():
                    yield TreeEntry(path.relative_to(self.root).as_posix(), path.stat().st_size)
                else:
                    self._num_links += path.is_symlink()

    def _in_archive(self) -> Iterator[TreeEntry]:
        members = self._open().infolist()
        names = [_name_of(member) for member in members]
        has_backslashes = all("/" not in name for name in names)
        for number, (member, name) in enumerate(zip(members, names, strict=True)):
            if member.flag_bits & 0x1:  # bit 0: encrypted (APPNOTE 4.4.4)
                raise DataError(
                    f"{self.root.name} has encrypted members", hint="unpack it, then import the folder"
                )
            name = name.replace("\\", "/") if has_backslashes else name
            if not name.endswith("/"):
                yield TreeEntry(name, member.file_size, number)

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(self.root)
                _require_one_archive(self._archive)
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
                raise DataError(
                    f"{self.root.name} is not a whole zip archive: {error}",
                    hint="the file was cut short or is not what its name says; fetch it again",
                ) from None
        return self._archive


def _name_of(member: zipfile.ZipInfo) -> str:
    """The name as it was meant. Bytes that are not UTF-8 become surrogates, as in names of a folder.

    zipfile decodes what is not marked as UTF-8 (bit 11) as code page 437, which is right for DOS alone: other
    programs write UTF-8 without the mark, or the encoding of their machine, which is named nowhere.
    """
    if member.flag_bits & 0x800:
        return member.filename
    raw = member.orig_filename.encode("cp437")
    return (_unicode_path(member.extra, raw) or raw).partition(b"\0")[0].decode(errors="surrogateescape")


def _unicode_path(extra: bytes, raw: bytes) -> bytes | None:
    """The name in UTF-8 that some programs write beside the other one (APPNOTE 4.6.9)."""
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        value, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == 0x7075 and value[:1] == b"\1" and value[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return value[5:]
    return None


def _require_one_archive(archive: zipfile.ZipFile) -> None:
    """Raises BadZipFile where members are not listed.

    zipfile believes the last end mark that it finds: of two archives joined it reads the members of one, and
    it never compares the list with its count.
    """
    members, file = archive.infolist(), archive.fp
    assert file is not None
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    counted, comment_bytes = (int.from_bytes(tail[at + shift :][:2], "little") for shift in (10, 20))
    if len(tail) - at > _END_BYTES + comment_bytes:
        raise zipfile.BadZipFile("bytes follow behind its end")
    if counted not in (len(members), 0xFFFF):  # all ones: counted elsewhere (zip64)
        raise zipfile.BadZipFile(f"its end counts {counted} members, {len(members)} are listed")
    if members and (first := min(member.header_offset for member in members)) > 0:
        file.seek(0)
        if file.read(4) == b"PK\3\4":
            raise zipfile.BadZipFile(f"its first {first} bytes are members that it does not list")


def group_by_size(entries: Sequence[TreeEntry], *, part_bytes: int) -> Iterator[Part]:
    """Parts of neighbouring entries of about `part_bytes`, a record each; the span is [first, last + 1)."""
    start = size = number = 0
    for index, entry in enumerate(entries):
        size += entry.size_bytes
        if size >= part_bytes or index == len(entries) - 1:
            yield Part(number, first_record=start, size_bytes=size, span=(start, index + 1))
            number, start, size = number + 1, index + 1, 0


def several_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} files behind it" if len(names) > 1 else ""
    return names[0] + more


def _refuse(error: OSError) -> None:
    """`os.walk` passes over what it may not list; an import must not."""
    raise DataError(
        f"cannot read the folder {error.filename}: {error.strerror}",
        hint="let yourself read it, or import the other folders one by one",
    )


def _is_wanted(entry: TreeEntry) -> bool:
    """Nothing is unpacked to disk, so a name with `..` leads nowhere and is a name like another."""
    parts = PurePosixPath(entry.name).parts
    return not any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)

"""Members of a tar to its end mark, packed or not. What tarfile takes for the end, this reader proves.

tarfile stops without a word at the first header that it cannot read, at a block of zeros wherever it
stands, and where the file was cut between two members. POSIX.1-2001 (pax, "ustar Interchange Format"):
an archive ends in two blocks of zeros. Behind them only zeros may follow here; two archives joined by
`cat` are refused, because nobody can tell them from one with a part zeroed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from rsc.errors import DataError
from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.file_tree import MAX_FILE_BYTES
from rsc.ingest.readers.lines import bounded_unpacking, require_whole_frames

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, Zstandard
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class TarMember:
    """A member: where it lies in an unpacked tar, or its bytes from a packed one.

    `refusal` says why its bytes are not read: it is a link, which may point anywhere, or sparse.
    """

    name: str
    start: int
    size: int
    data: bytes | None
    refusal: str = ""


class _Header(tarfile.TarInfo):
    """A header that is damaged or missing is an error, not the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros
            raise
        except tarfile.HeaderError:
            if len(buf) < _BLOCK:
                raise DataError("it ends without its end mark") from None
            raise DataError("a header is damaged") from None


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def tar_members(path: Path) -> Iterator[TarMember]:
    """Files and links in the order of the archive. Raises DataError when it is damaged or goes on behind its
    end mark."""
    num_members = 0
    is_packed = _is_packed(path)
    try:
        with _whole(path, is_packed=is_packed) as file, _opened(file, is_packed=is_packed) as archive:
            for info in archive:
                num_members += 1
                if info.size < 0:
                    raise DataError("a header is damaged")
                if info.isfile() or info.islnk() or info.issym():
                    yield _member(archive, info, is_packed=is_packed)
            _require_end(archive.fileobj)
    except LimitPassed:
        raise
    except (tarfile.TarError, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError, OSError) as error:
        _refuse(path, str(error), num_members=num_members)
    except DataError as error:
        _refuse(path, error.message, num_members=num_members)


def _refuse(path: Path, what: str, *, num_members: int) -> None:
    raise DataError(
        f"{path.name} is not a whole tar archive: {what} (after {num_members} members)",
        hint="fetch it again; archives joined by cat: put them into a folder as files of their own",
    ) from None


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo, *, is_packed: bool) -> TarMember:
    refusal = ""
    if info.islnk() or info.issym():
        refusal = "is a link, which is not followed"
    elif info.issparse():
        refusal = "is stored sparsely, which is not read: pack it without --sparse"
    data = b"" if is_packed else None
    if is_packed and not refusal and info.size <= MAX_FILE_BYTES:
        extracted = archive.extractfile(info)
        data = b"" if extracted is None else extracted.read()
    return TarMember(info.name, info.offset_data, info.size, data, refusal)


def _require_end(file: Any) -> None:
    """The first block of zeros has been read: a second one follows, then zeros alone."""
    second = file.read(_BLOCK)
    if len(second) < _BLOCK:
        raise DataError("it ends inside its end mark")
    while second:
        if second.count(0) < len(second):
            raise DataError("it goes on behind its end mark")
        second = file.read(1 << 20)


@contextmanager
def _opened(file: BinaryIO, *, is_packed: bool) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=file, mode="r|" if is_packed else "r:", tarinfo=_Header) as archive:
        yield archive


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith(_PACKED)


def _whole(path: Path, *, is_packed: bool) -> BinaryIO:
    return bounded_unpacking(_unpacked(path), path=path) if is_packed else _unpacked(path)


def _unpacked(path: Path) -> BinaryIO:
    """The tar itself, whatever its name says. The packers' own checks run to the end of their streams."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(_PACKED[0]):
        return gzip.open(path)  # type: ignore[return-value]
    if start.startswith(_PACKED[1]):
        return bz2.open(path)  # type: ignore[return-value]
    if start.startswith(_PACKED[2]):
        return lzma.open(path)  # type: ignore[return-value]
    if start.startswith(_PACKED[3]):
        require_whole_frames(path)
        raw = zstandard.ZstdDecompressor().stream_reader(
            path.open("rb"), read_across_frames=True, closefd=True
        )
        return io.BufferedReader(raw, buffer_size=1 << 20)
    return path.open("rb")

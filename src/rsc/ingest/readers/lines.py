"""Files as bytes read forwards: plain, gzip, bzip2, xz or Zstandard, cut into parts at line ends."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from rsc.errors import DataError
from rsc.ingest.parse_limits import require_ratio
from rsc.ingest.readers.json_list import BadList, ListLines
from rsc.ingest.readers.packed_streams import BadStream, WholeStreams
from rsc.ingest.readers.source import Part, SourceFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RECORD_BYTES = 64 << 20  # a longer line is one bad record, so that memory stays bounded
_FRAME_HEADER_BYTES = 18  # the longest of Zstandard
_MAX_WINDOW_BYTES = 1 << 31  # `zstd --long=31`; memory is taken as the content needs it
_COMPRESSED = {".gz": "gzip", ".zst": "Zstandard", ".bz2": "bzip2", ".xz": "xz"}


@dataclass(frozen=True)
class LineSpan:
    """Bytes [start, stop) of the decompressed file: whole lines, the first one is number `first_line`.

    `too_long` marks a span that is a single line over MAX_RECORD_BYTES; its bytes are not kept.
    """

    start: int
    stop: int
    first_line: int
    too_long: bool = False


def is_compressed(path: SourceFile) -> bool:
    return path.suffix.lower() in _COMPRESSED


def is_read_forwards(path: SourceFile) -> bool:
    """Whether the importing process alone reads it, from its start: packed, or not on a path."""
    return is_compressed(path) or not isinstance(path, Path)


def bare_suffix(path: SourceFile) -> str:
    """The suffix that tells the format: `.jsonl` of `posts.jsonl.gz`."""
    return Path(path.stem).suffix.lower() if is_compressed(path) else path.suffix.lower()


@dataclass(frozen=True)
class LineEnds:
    """What ends lines where it is no line feed: a carriage return alone, as old Macintosh programs write it,
    or the commas of one JSON list."""

    are_returns: bool = False
    are_commas: bool = False


FEEDS = LineEnds()


@contextmanager
def open_forwards(path: SourceFile, *, ends: LineEnds = FEEDS) -> Iterator[BinaryIO]:
    """A reader of the decompressed bytes, with `ends` as line feeds. Raises DataError when the compressed
    stream is damaged, or not one whole list, and LimitPassed where it unpacks to much more than it is."""
    with _told(path), _bounded(path) as file:
        if ends.are_commas:
            yield io.BufferedReader(ListLines(file), 1 << 20)
        else:
            yield io.BufferedReader(_Returns(file), 1 << 20) if ends.are_returns else file


def has_bare_returns(path: SourceFile) -> bool:
    """Whether a file ends its lines with a carriage return alone, as old Macintosh programs do."""
    with open_forwards(path) as file:
        start = file.read(1 << 20)
    return b"\r" in start.removesuffix(b"\r") and b"\n" not in start


def _bounded(path: SourceFile) -> BinaryIO:
    file = _open_forwards(path)
    return bounded_unpacking(file, path=path) if is_compressed(path) else file


def bounded_unpacking(file: BinaryIO, *, path: SourceFile) -> BinaryIO:
    """What `file` unpacks of the file at `path`, as far as it may: then LimitPassed."""
    return io.BufferedReader(_Bounded(file, source_bytes=_size_of(path)), buffer_size=1 << 20)


def _size_of(path: SourceFile) -> int:
    if isinstance(path, Path):
        return path.stat().st_size
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _open_forwards(path: SourceFile) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path if isinstance(path, Path) else path.open("rb"))  # type: ignore[return-value]
    if suffix in (".bz2", ".xz"):
        return io.BufferedReader(WholeStreams(path), buffer_size=1 << 20)
    if suffix == ".zst":
        require_whole_frames(path)
        raw = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(
            path.open("rb"), read_across_frames=True, closefd=True
        )
        return io.BufferedReader(raw, buffer_size=1 << 20)
    return path.open("rb")


class _Bounded(io.RawIOBase):
    """Unpacked bytes, counted."""

    def __init__(self, file: BinaryIO, *, source_bytes: int) -> None:
        self._file = file
        self._source_bytes = source_bytes
        self._unpacked_bytes = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer) -> int:
        size: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._unpacked_bytes += size
        require_ratio(self._unpacked_bytes, source_bytes=self._source_bytes)
        return size


class _Returns(io.RawIOBase):
    """Bytes of a file with carriage returns as line feeds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view)).replace(b"\r", b"\n")
        view[: len(data)] = data
        return len(data)


def require_whole_frames(path: SourceFile) -> None:
    """Raises EOFError when a Zstandard file ends inside a frame; the library takes that for its end.

    Walks the headers of frames and blocks (RFC 8878, section 3.1) without unpacking: a read for each 128 KiB.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        at = 0
        while at < size:
            file.seek(at)
            start = file.read(_FRAME_HEADER_BYTES)
            if start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50:  # skippable
                at += 8 + int.from_bytes(start[4:8], "little")
            elif start[:4] == zstandard.FRAME_HEADER:
                file.seek(at + zstandard.frame_header_size(start))
                _pass_blocks(file)
                at = file.tell() + (4 if start[4] & 0x04 else 0)  # the content's checksum
            elif len(start) < 4:
                raise EOFError("it ends inside a frame")
            else:
                return  # not a frame: the library says so
        if at > size:
            raise EOFError("it ends inside a frame")


def _pass_blocks(file: BinaryIO) -> None:
    """From behind a frame's header to behind its last block."""
    is_last = False
    while not is_last:
        header = file.read(3)
        if len(header) < 3:
            raise EOFError("it ends inside a frame")
        value = int.from_bytes(header, "little")
        is_last, is_run = bool(value & 1), value >> 1 & 3 == 1
        file.seek(1 if is_run else value >> 3, os.SEEK_CUR)


def cut_at_lines(
    path: SourceFile,
    *,
    part_bytes: int,
    count: Callable[[bytes, int], int] | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    ends: LineEnds = FEEDS,
) -> Iterator[Part]:
    """Parts of whole lines of about `part_bytes` each.

    `count` gives the number of records in (bytes of a part, its first line); without it a record is
    a line.
    Raises DataError when the compressed stream is damaged.
    """
    is_forward_only = is_read_forwards(path) or ends.are_commas
    first_line = first_record = start = 0
    pieces = _pieces(path, part_bytes, max_record_bytes=max_record_bytes, ends=ends)
    for number, (piece, skipped_bytes) in enumerate(pieces):
        size = len(piece) + skipped_bytes
        span = LineSpan(start=start, stop=start + size, first_line=first_line, too_long=skipped_bytes > 0)
        payload = None if span.too_long else piece
        num_lines = 1 if span.too_long else piece.count(b"\n") + (not piece.endswith(b"\n"))
        num_records = count(piece, first_line) if count and not span.too_long else num_lines
        yield Part(
            number,
            first_record,
            size,
            span,
            payload=payload,
            is_forward_only=is_forward_only,
            num_records=num_records,
        )
        start, first_line, first_record = span.stop, first_line + num_lines, first_record + num_records


def read_span(path: SourceFile, part: Part, *, ends: LineEnds = FEEDS) -> bytes:
    """The bytes of one part."""
    if part.payload is not None:
        return part.payload
    with path.open("rb") as file:
        file.seek(part.span.start)
        data = file.read(part.span.stop - part.span.start)
    return data.replace(b"\r", b"\n") if ends.are_returns else data


def end_notes(data: bytes) -> dict[str, int]:
    """A note where the bytes of a part, which holds whole lines, end without one: only the last part can."""
    return (
        {} if data.endswith(b"\n") else {"the last line has no line end, as in a file that was cut short": 1}
    )


def head(path: SourceFile, *, size_bytes: int, ends: LineEnds = FEEDS) -> bytes:
    """The first bytes, cut after a whole line when there is more; a longer first line is read to its end,
    as far as a record goes."""
    with open_forwards(path, ends=ends) as file:
        data = file.read(size_bytes)
        while b"\n" not in data and len(data) <= MAX_RECORD_BYTES and (more := file.read(size_bytes)):
            data += more
        is_all = not file.read(1)
    cut = data.rfind(b"\n")
    return data if is_all or cut < 0 else data[: cut + 1]


def _pieces(
    path: SourceFile, part_bytes: int, *, max_record_bytes: int, ends: LineEnds
) -> Iterator[tuple[bytes, int]]:
    """(whole lines, 0), or (b"", size) for a line of more than `max_record_bytes` that was passed over."""
    with open_forwards(path, ends=ends) as file:
        rest = b""
        while block := file.read(part_bytes):
            data = rest + block
            cut = data.rfind(b"\n") + 1
            if cut:
                yield data[:cut], 0
            elif len(data) > max_record_bytes:
                tail, rest = _skip_line(file, block_bytes=part_bytes)
                yield b"", len(data) + tail
                continue
            rest = data[cut:]
        if rest:
            yield rest, 0


def _skip_line(file: BinaryIO, *, block_bytes: int) -> tuple[int, bytes]:
    """Read on to the end of the line: (bytes passed over, what was read after it)."""
    passed = 0
    while block := file.read(block_bytes):
        end = block.find(b"\n") + 1
        if end:
            return passed + end, block[end:]
        passed += len(block)
    return passed, b""


@contextmanager
def _told(path: SourceFile) -> Iterator[None]:
    try:
        yield
    except BadList as error:
        raise DataError(
            f"{path.name} is not one whole JSON list: {error}",
            hint="it was cut short, or its name should end in .jsonl: one object a line",
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError, lzma.LZMAError, BadStream) as error:
        what = _COMPRESSED[path.suffix.lower()]
        if "Dictionary" in str(error):
            raise DataError(
                f"{path.name} was packed with a dictionary, which is not in it",
                hint="unpack it first: zstd -d -D DICTIONARY FILE",
            ) from None
        raise DataError(
            f"{path.name} is not a whole {what} file: {error}",
            hint="the file was cut short or is not what its name says; fetch it again",
        ) from None

"""One JSON list of records (`[{...}, {...}]`) as lines of one record each, read forwards in bounded memory.

A comma between two records becomes a line end and a line end between two values a space; what stands inside
a string stays as it is, so that what was no JSON is no JSON afterwards. The list must end, and nothing may
follow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK_BYTES = 1 << 20
_MOST_TEXT_BYTES = 64 << 20  # as long as a record may be
_SPACE = b" \t\r\n"
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+("?)|[\[\]{},]|[\r\n]+', re.DOTALL)


class BadList(Exception):
    """Bytes that are not one whole JSON list."""


class ListLines(io.RawIOBase):
    """The lines. Reading raises BadList where the file is not one list to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._pieces = _lines(file)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        data, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(data)] = data
        return len(data)


def begins_list(start: bytes) -> bool:
    """Whether a file that begins so holds one list."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE).startswith(b"[")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Pieces of the lines: as many bytes as were read, with the list's own marks replaced."""
    state = _State()
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        piece, rest = state.replace_marks(rest + block)
        if len(rest) > _MOST_TEXT_BYTES:
            raise BadList(f"a text in it is longer than {_MOST_TEXT_BYTES} bytes")
        yield piece
    piece, rest = state.replace_marks(rest)
    if rest:
        raise BadList("it ends inside a text")
    if state.depth or not state.is_begun:
        raise BadList("it ends inside the list")
    yield piece + b"\n"


class _State:
    """Where in the list the next byte stands."""

    def __init__(self) -> None:
        self.depth = 0
        self.is_begun = False
        self._has_record = False
        self._num_records = 0

    def replace_marks(self, data: bytes) -> tuple[bytes, bytes]:
        """The data with its marks replaced, and what of it can only be told with the bytes that follow."""
        out = bytearray(data)
        at = 0
        for match in _TOKEN.finditer(data):
            self._pass_over(data, at, match.start())
            at = match.end()
            first = data[match.start()]
            if first == 0x22:
                if not match[1]:
                    return bytes(out[: match.start()]), data[match.start() :]
                self._meet_value()
            elif first in b"\r\n":
                out[match.start() : at] = b" " * (at - match.start())
            else:
                self._mark(first, out, match.start())
        self._pass_over(data, at, len(data))
        return bytes(out), b""

    def _pass_over(self, data: bytes, start: int, stop: int) -> None:
        """Bytes without marks: white space, numbers and words."""
        if start < stop and data[start:stop].strip(_SPACE).removeprefix(b"\xef\xbb\xbf"):
            self._meet_value()

    def _meet_value(self) -> None:
        if not self.depth:
            raise BadList("something follows behind its end" if self.is_begun else "it begins with no list")
        self._has_record = True

    def _mark(self, mark: int, out: bytearray, at: int) -> None:
        if mark in b"[{":
            if not self.depth and not self.is_begun and mark == 0x5B:
                self.is_begun, self.depth = True, 1
                out[at : at + 1] = b" "
                return
            self._meet_value()
            self.depth += 1
        elif mark in b"]}":
            self.depth -= 1
            if self.depth < 0:
                raise BadList("something follows behind its end")
            if not self.depth:
                if mark != 0x5D or (self._num_records and not self._has_record):
                    raise BadList("it does not end as a list does")
                out[at : at + 1] = b" "
        elif self.depth == 1:
            if not self._has_record:
                raise BadList("a record is missing between two commas")
            self._num_records += 1
            self._has_record = False
            out[at : at + 1] = b"\n"
        elif not self.depth:
            raise BadList("something follows behind its end")

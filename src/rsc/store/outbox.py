"""Bytes on their way to a file, gathered in memory that a disk can take as it is.

Frames are encrypted straight into the outbox, hashed there, and handed over in pieces of about 4 MiB that
begin at a page and are whole pages long: a `Sink` may then write past the page cache, without a copy. Only
the last piece has another length.
"""

from __future__ import annotations

import mmap
from typing import Protocol

ALIGNMENT = mmap.PAGESIZE
_PIECE_BYTES = 4 << 20  # 1 to 8 MiB write at the same rate; a disk far away likes them large


class Sink(Protocol):
    def write(self, data: memoryview, /) -> None:
        """Take all bytes or raise ResourceError."""
        ...


class Outbox:
    """`reserve` room, fill it, and again; `finish` hands over what is left. The room is valid until then."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._memory = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        self._filled = 0

    def reserve(self, size: int) -> memoryview:
        """The next `size` bytes of the file, for the caller to fill before the next call."""
        if self._filled + size > len(self._memory):
            self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        if self._filled + size > len(self._memory):
            self._grow(self._filled + size)
        room = self._memory[self._filled : self._filled + size]
        self._filled += size
        return room

    def finish(self) -> None:
        """Hand over everything; the outbox is empty then."""
        self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        self._hand_over(self._filled)

    def _hand_over(self, size: int) -> None:
        if size:
            self._sink.write(self._memory[:size])
        rest = self._filled - size
        self._memory[:rest] = self._memory[size : self._filled]
        self._filled = rest

    def _grow(self, size: int) -> None:
        larger = memoryview(mmap.mmap(-1, size))
        larger[: self._filled] = self._memory[: self._filled]
        self._memory = larger

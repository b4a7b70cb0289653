"""Bytes on their way to a file, gathered in memory that a disk can take as it is.

Frames are encrypted straight into the outbox and handed over in pieces of about 4 MiB that begin at a page
and are whole pages long: a `Sink` may then write past the page cache, without a copy. Only the last piece has
another length. While the disk takes a piece, a second thread hashes it: SHA-256 and a disk are about equally
fast, and one after the other they would hold a checkpoint up for twice as long.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

ALIGNMENT = mmap.PAGESIZE
_PIECE_BYTES = 4 << 20  # 1 to 8 MiB write at the same rate; a disk far away likes them large
_WORTH_A_THREAD = 256 << 10  # bytes; handing over less costs as much as hashing it


class Sink(Protocol):
    def write(self, data: memoryview, /) -> None:
        """Take all bytes or raise ResourceError."""
        ...


class Outbox:
    """`reserve` room, fill it, and again; `finish` hands over what is left. The room is valid until then.

    `look` sees every byte once, in order, before or while it is written; `show_rest` ends that.
    """

    def __init__(self, sink: Sink, *, look: Callable[[memoryview], None]) -> None:
        self._sink = sink
        self._look = look
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="rsc-outbox")
        self._memory = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        self._filled = 0
        self._seen = 0  # of what is filled, the bytes that `look` had or shall not have
        self._is_looked_at = True

    def reserve(self, size: int) -> memoryview:
        """The next `size` bytes of the file, for the caller to fill before the next call."""
        if self._filled + size > len(self._memory):
            self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        if self._filled + size > len(self._memory):
            self._grow(self._filled + size)
        room = self._memory[self._filled : self._filled + size]
        self._filled += size
        return room

    def show_rest(self) -> None:
        """Let `look` see what it has not seen yet, and nothing of what is reserved from now on."""
        self._look(self._memory[self._seen : self._filled])
        self._is_looked_at = False

    def finish(self) -> None:
        """Hand over everything; the outbox is empty then."""
        self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        self._hand_over(self._filled)
        self._beside.shutdown()

    def _hand_over(self, size: int) -> None:
        if size:
            self._show_and_write(size)
        rest = self._filled - size
        self._memory[:rest] = self._memory[size : self._filled]
        self._filled = rest
        self._seen = max(self._seen - size, 0)

    def _show_and_write(self, size: int) -> None:
        new = self._memory[self._seen : size] if self._is_looked_at else self._memory[:0]
        if len(new) < _WORTH_A_THREAD:
            if new:
                self._look(new)
            self._sink.write(self._memory[:size])
        else:
            looking = self._beside.submit(self._look, new)
            try:
                self._sink.write(self._memory[:size])
            finally:
                looking.result()  # the memory is filled anew after this
        self._seen = max(self._seen, size)

    def _grow(self, size: int) -> None:
        larger = memoryview(mmap.mmap(-1, size))
        larger[: self._filled] = self._memory[: self._filled]
        self._memory = larger

"""Bytes on their way to a file, gathered in memory that a disk can take as it is.

Frames are encrypted straight into the outbox and handed over in pieces of about 4 MiB that begin at a page
and are whole pages long: a `Sink` may then write past the page cache, without a copy. Only the last piece has
another length. A second thread hashes a piece while it is written and the next one is encrypted: SHA-256 and
a disk are about equally fast, and one after the other they would hold a checkpoint up for twice as long.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

ALIGNMENT = mmap.PAGESIZE
_PIECE_BYTES = 4 << 20  # 1 to 8 MiB write at the same rate; a disk far away likes them large


class Sink(Protocol):
    def write(self, data: memoryview, /) -> None:
        """Take all bytes or raise ResourceError."""
        ...


class Outbox:
    """`reserve` room, fill it, and again; `finish` hands over what is left. The room is valid until then.

    `look` sees every byte once, in order, on a thread of its own; `show_rest` waits for it and ends that.
    """

    def __init__(self, sink: Sink, *, look: Callable[[memoryview], None]) -> None:
        self._sink = sink
        self._look = look
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="rsc-outbox")
        self._looking: Future[None] | None = None  # at `_other`
        self._memory = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        self._other = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        self._filled = 0
        self._is_looked_at = True

    def reserve(self, size: int) -> memoryview:
        """The next `size` bytes of the file, for the caller to fill before the next call."""
        if self._filled + size > len(self._memory):
            self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        if self._filled + size > len(self._memory):
            self._memory = _grown(self._memory, self._filled + size, keep=self._filled)
        room = self._memory[self._filled : self._filled + size]
        self._filled += size
        return room

    def show_rest(self) -> None:
        """Let `look` see what it has not seen yet, and nothing of what is reserved from now on."""
        self._wait()
        self._look(self._memory[: self._filled])
        self._is_looked_at = False

    def finish(self) -> None:
        """Hand over everything; the outbox is empty then."""
        self._hand_over(self._filled // ALIGNMENT * ALIGNMENT)
        self._hand_over(self._filled)
        self._wait()
        self._beside.shutdown()

    def _hand_over(self, size: int) -> None:
        """Write the first `size` bytes, and go on in the other memory while they are looked at."""
        if not size:
            return
        self._wait()
        piece, rest = self._memory[:size], self._memory[size : self._filled]
        if self._is_looked_at:
            self._looking = self._beside.submit(self._look, piece)
        self._sink.write(piece)
        self._other = _grown(self._other, len(rest), keep=0)
        self._other[: len(rest)] = rest
        self._memory, self._other = self._other, self._memory
        self._filled = len(rest)

    def _wait(self) -> None:
        """Until nobody looks at the other memory. Raises what `look` raised."""
        if self._looking is not None:
            self._looking.result()
            self._looking = None


def _grown(memory: memoryview, size: int, *, keep: int) -> memoryview:
    """At least `size` bytes that begin with the first `keep` of `memory`."""
    if size <= len(memory):
        return memory
    larger = memoryview(mmap.mmap(-1, size))
    larger[:keep] = memory[:keep]
    return larger

"""A file that is written behind its writer: encrypting and hashing the next piece overlaps with the disk.

All three release the interpreter's lock, so a checkpoint takes as long as the slower of SHA-256 and the disk.
"""

from __future__ import annotations

import mmap
import queue
import threading

from rsc.store.files import BulkFile

_DEPTH = 4  # pieces of 4 MiB on their way: enough to ride over a slow write


class BehindFile:
    """Wraps a `BulkFile`. An error of the disk is raised at the next `write`, or at `commit`.

    Pieces are copied into whole pages, which the disk can take without the page cache; the copy costs a
    twelfth of the hash.
    """

    def __init__(self, file: BulkFile) -> None:
        self._file = file
        self._free: queue.Queue[memoryview] = queue.Queue()
        self._full: queue.Queue[tuple[memoryview, int] | None] = queue.Queue()
        for _ in range(_DEPTH):
            self._free.put(memoryview(b""))
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._drain, name="checkpoint-disk", daemon=True)
        self._thread.start()

    def write(self, data: memoryview, /) -> None:
        """Take a copy of `data`: the caller reuses its buffer. Waits while all pieces are on their way."""
        room = self._free.get()
        if self._error is not None:
            raise self._error
        if len(room) < len(data):
            room = memoryview(mmap.mmap(-1, len(data)))
        room[: len(data)] = data
        self._full.put((room, len(data)))

    def commit(self) -> None:
        """When everything is written: durable and visible. Raises what the disk said."""
        self._join()
        if self._error is not None:
            raise self._error
        self._file.commit()

    def discard(self) -> None:
        self._join()
        self._file.discard()

    def _join(self) -> None:
        if self._thread.is_alive():
            self._full.put(None)
            self._thread.join()

    def _drain(self) -> None:
        while (piece := self._full.get()) is not None:
            room, size = piece
            if self._error is None:
                try:
                    self._file.write(room[:size])
                except Exception as error:
                    self._error = error  # and go on emptying the queue, or the writer would wait for ever
            self._free.put(room)

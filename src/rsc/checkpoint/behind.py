"""A file that is written behind its writer: encrypting and hashing the next frame overlaps with the disk.

All three release the interpreter's lock, so on two cores a checkpoint takes as long as its slower half.
"""

from __future__ import annotations

import queue
import threading

from rsc.store.files import BulkFile

_DEPTH = 8  # frames in flight: 8 MiB, enough to ride over a slow write


class BehindFile:
    """Wraps a `BulkFile`. An error of the disk is raised at the next `write`, or at `commit`."""

    def __init__(self, file: BulkFile) -> None:
        self._file = file
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._drain, name="checkpoint-disk", daemon=True)
        self._thread.start()

    def write(self, data: memoryview, /) -> None:
        """Take a copy of `data`: the caller reuses its buffer."""
        if self._error is not None:
            raise self._error
        self._queue.put(bytes(data))

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
            self._queue.put(None)
            self._thread.join()

    def _drain(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._file.write(memoryview(data))
                except Exception as error:
                    self._error = error  # and go on emptying the queue, or the writer would wait for ever

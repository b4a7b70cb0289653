"""What is read of stored checkpoints, counted at the one wall where they are opened. No torch.

A start that goes on from memory promises to read none; its `resumed` event shows the count.
Not covered: names are listed without being counted, to learn which checkpoints there are.
"""

from __future__ import annotations

from typing import Protocol

from rsc.store.bulk.interface import RandomAccess


class CheckpointFiles(Protocol):
    """The part of a `BulkStore` that reading checkpoints needs."""

    def open(self, path: str, *, size_bytes: int | None = None) -> RandomAccess: ...

    def children(self, folder: str) -> list[str]: ...


class StoreReads:
    """Files opened and bytes read by one process, over all the stores that it counts."""

    def __init__(self) -> None:
        self.num_files = 0
        """A file that is opened again counts again."""
        self.size_bytes = 0

    def of(self, store: CheckpointFiles) -> CheckpointFiles:
        """The same store; what is read of it is counted here."""
        return _CountedFiles(store, self)

    def facts(self) -> dict[str, int]:
        return {"store_files_read": self.num_files, "store_bytes_read": self.size_bytes}


class _CountedFiles:
    def __init__(self, store: CheckpointFiles, reads: StoreReads) -> None:
        self._store = store
        self._reads = reads

    def open(self, path: str, *, size_bytes: int | None = None) -> RandomAccess:
        source = self._store.open(path, size_bytes=size_bytes)
        self._reads.num_files += 1
        return _CountedFile(source, self._reads)

    def children(self, folder: str) -> list[str]:
        return self._store.children(folder)


class _CountedFile:
    """A file without `view`: every byte passes `read_into`."""

    def __init__(self, source: RandomAccess, reads: StoreReads) -> None:
        self._source = source
        self._reads = reads

    @property
    def size_bytes(self) -> int:
        return self._source.size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        self._source.read_into(offset, buffer)
        self._reads.size_bytes += memoryview(buffer).nbytes

    def close(self) -> None:
        self._source.close()

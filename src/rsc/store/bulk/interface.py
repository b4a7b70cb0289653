"""The wall between the store and whatever holds its bytes: small interfaces, one real class each.

`LocalStore` (local.py) is a folder, `ObjectStore` (objects.py) is S3, GCS, Azure or memory, and tests have
their own. Paths are relative, with `/`. Bytes that pass here are ciphertext or public metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable


class RandomAccess(Protocol):
    """A readable file of fixed size. Reading is safe from any thread."""

    @property
    def size_bytes(self) -> int: ...

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer`. Raises IntegrityError `truncated` when the file ends before, and ResourceError
        when the storage does not answer."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class MappedAccess(Protocol):
    """What a `RandomAccess` has besides when its bytes are in memory already."""

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """The bytes without a copy. Raises IntegrityError `truncated`."""
        ...


class BulkFile(Protocol):
    """A file being written; nobody sees it before `commit`."""

    def write(self, data: memoryview, /) -> None:
        """Append all of `data`. Raises ResourceError (disk full, connection lost)."""
        ...

    def commit(self) -> None:
        """Make it durable, then visible under its name, whole."""
        ...

    def discard(self) -> None:
        """Give it up and leave nothing. Safe after a failed write or commit."""
        ...


class BulkStore(Protocol):
    """Files by name. `FileNotFoundError` where a name is missing, ResourceError where storage fails."""

    def create(self, path: str) -> BulkFile: ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace a small file: readers see the old bytes or the new ones, durable on return."""
        ...

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """As `put`, but False and no change when the name is taken. Decides races between writers."""
        ...

    def open(self, path: str, *, size_bytes: int | None = None) -> RandomAccess:
        """`size_bytes`, where the caller knows it from a manifest, saves asking the storage."""
        ...

    def walk(self, folder: str) -> Iterator[str]:
        """Every file below a folder, as paths; what a killed writer left half-written is among them."""
        ...

    def children(self, folder: str) -> list[str]:
        """Names of the files and folders directly in a folder, sorted."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; missing is fine."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Remove everything below; missing is fine."""
        ...

    def publish(self, staging: str, target: str) -> bool:
        """Make a finished folder visible under another name in one step; False when that name is taken.

        Only where `renames_folders`; elsewhere a version is published by its last object.
        """
        ...

    @property
    def renames_folders(self) -> bool: ...


def read_all(source: RandomAccess) -> bytes:
    """The whole of a small file; closes it."""
    buffer = bytearray(source.size_bytes)
    try:
        source.read_into(0, buffer)
    finally:
        source.close()
    return bytes(buffer)

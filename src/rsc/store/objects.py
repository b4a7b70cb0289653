"""Bulk storage in an object store: S3, Google Cloud Storage, Azure Blob, or memory, all through obstore.

Credentials come from the places where the providers' own tools look (environment, instance roles).
An object appears whole when its upload completes. Nothing is renamed: a data set version is published by
its `root.json`, put last and only if absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import ObjectStore as Backend

from rsc.errors import IntegrityError, ResourceError

_PART_BYTES = 8 << 20  # of a multipart upload; S3 allows 5 MiB to 5 GiB, 10,000 parts


class ObjectStore:
    """A `BulkStore` over any obstore backend."""

    renames_folders = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def create(self, path: str) -> ObjectFile:
        return ObjectFile(self._backend, path=path)

    def put(self, path: str, data: bytes) -> None:
        with _resource_errors(path):
            obstore.put(self._backend, path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with _resource_errors(path):
            try:
                obstore.put(self._backend, path, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def open(self, path: str, *, size_bytes: int | None = None) -> ObjectReader:
        if size_bytes is None:
            with _resource_errors(path):
                size_bytes = obstore.head(self._backend, path)["size"]
        return ObjectReader(self._backend, path=path, size_bytes=size_bytes)

    def walk(self, folder: str) -> Iterator[str]:
        with _resource_errors(folder):
            for page in obstore.list(self._backend, prefix=folder):
                yield from (item["path"] for item in page)

    def children(self, folder: str) -> list[str]:
        with _resource_errors(folder):
            found = obstore.list_with_delimiter(self._backend, prefix=folder or None)
        names = [item["path"] for item in found["objects"]] + list(found["common_prefixes"])
        return sorted(name.rstrip("/").rpartition("/")[2] for name in names)

    def delete(self, path: str) -> None:
        with _resource_errors(path):
            try:
                obstore.delete(self._backend, path)
            except (NotFoundError, FileNotFoundError):
                return

    def delete_folder(self, folder: str) -> None:
        for path in list(self.walk(folder)):
            self.delete(path)

    def publish(self, staging: str, target: str) -> bool:
        raise NotImplementedError("object stores publish by their last object, see renames_folders")


class ObjectFile:
    """A multipart upload; invisible until `commit` completes it."""

    def __init__(self, backend: Backend, *, path: str) -> None:
        self._path = path
        self._backend = backend
        self._writer = obstore.open_writer(backend, path, buffer_size=_PART_BYTES)

    def write(self, data: memoryview, /) -> None:
        with _resource_errors(self._path):
            self._writer.write(bytes(data))  # it keeps a reference, and the caller uses its memory again

    def commit(self) -> None:
        with _resource_errors(self._path):
            self._writer.close()

    def discard(self) -> None:
        """Drop the parts. What a lost connection leaves behind is the bucket's lifecycle rule to remove."""
        del self._writer


class ObjectReader:
    """`RandomAccess` by ranged GETs."""

    def __init__(self, backend: Backend, *, path: str, size_bytes: int) -> None:
        self._backend = backend
        self._path = path
        self.size_bytes = size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        if len(buffer) == 0:
            return
        with _resource_errors(self._path):
            data = obstore.get_range(self._backend, self._path, start=offset, length=len(buffer))
        if len(data) != len(buffer):
            raise IntegrityError(f"{self._path}: {len(data)} bytes at {offset}, asked for {len(buffer)}",
                                 outcome="truncated")  # fmt: skip
        memoryview(buffer)[:] = memoryview(data)

    def close(self) -> None:
        """Nothing to close: connections belong to the backend."""


@contextmanager
def _resource_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise FileNotFoundError(path) from None
    except (BaseError, OSError) as error:
        hint = "check the connection, the bucket's name and the credentials"
        raise ResourceError(f"object store failed at {path}: {error}", hint=hint, path=path) from error

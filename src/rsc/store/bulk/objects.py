"""Bulk storage in an object store: S3, Google Cloud Storage, Azure Blob, or memory, all through obstore.

Credentials come from the places where the providers' own tools look (environment, instance roles).
An object appears whole when its upload completes. Nothing is renamed: a data set version is published by
its `root.json`, put last and only if absent.

Reads survive a storage that drops, delays, refuses or cuts answers short: a range is resumed from the byte
that arrived last, and given up after `Retry.attempts` failures without a byte of progress. Bytes that
arrive wrong are the business of whoever checks them (cache.py by block hashes, container.py by tags).
Parts of uploads are sent again by obstore, which holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore as Backend

from rsc.errors import IntegrityError, ResourceError
from rsc.store.bulk.interface import read_all
from rsc.store.bulk.retry import Retry

if TYPE_CHECKING:
    from obstore import WritableFile  # exists for type checkers only

_PART_BYTES = 8 << 20  # of a multipart upload; S3 allows 5 MiB to 5 GiB, 10,000 parts
_PIECE_BYTES = 1 << 20  # of a streamed answer: what a dropped connection loses at most
_FINAL = (NotFoundError, AlreadyExistsError, PermissionDeniedError, UnauthenticatedError, FileNotFoundError)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")
# Without credentials the client asks the machine's role; and what S3, GCS and Azure call a wrong one.
_NO_LOGIN = ("169.254.169.254", "metadata.google", "AccessDenied", "InvalidAccessKeyId",
             "SignatureDoesNotMatch", "AuthenticationFailed", "403 Forbidden", "401 Unauth")  # fmt: skip
Result = TypeVar("Result")


class ObjectStore:
    """A `BulkStore` over any obstore backend."""

    renames_folders = False

    def __init__(self, backend: Backend, *, retry: Retry | None = None) -> None:
        self._backend = backend
        self._retry = retry or Retry()

    def create(self, path: str) -> ObjectFile:
        return ObjectFile(self._backend, path=path)

    def put(self, path: str, data: bytes) -> None:
        self._call(path, lambda: obstore.put(self._backend, path, data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """True also where the name already holds exactly these bytes: an earlier try may have arrived
        although its answer was lost, and what decides races here holds a random id."""
        try:
            self._call(path, lambda: obstore.put(self._backend, path, data, mode="create"))
        except AlreadyExistsError:
            return read_all(self.open(path)) == data
        return True

    def open(self, path: str, *, size_bytes: int | None = None) -> ObjectReader:
        if size_bytes is None:
            size_bytes = self._size(path)
        return ObjectReader(self._backend, path=path, size_bytes=size_bytes, retry=self._retry)

    def walk(self, folder: str) -> Iterator[str]:
        pages = self._call(folder, lambda: list(obstore.list(self._backend, prefix=folder)))
        return iter(item["path"] for page in pages for item in page)

    def children(self, folder: str) -> list[str]:
        found = self._call(folder, lambda: obstore.list_with_delimiter(self._backend, prefix=folder or None))
        names = [item["path"] for item in found["objects"]] + list(found["common_prefixes"])
        return sorted(name.rstrip("/").rpartition("/")[2] for name in names)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._call(path, lambda: obstore.delete(self._backend, path))

    def delete_folder(self, folder: str) -> None:
        for path in self.walk(folder):
            self.delete(path)

    def publish(self, staging: str, target: str) -> bool:
        raise NotImplementedError("object stores publish by their last object, see renames_folders")

    def stamp(self, path: str) -> tuple[int, str]:
        """Size, and what changes when the object is written again."""
        facts = self._call(path, lambda: obstore.head(self._backend, path))
        return facts["size"], f"{facts['e_tag']} {facts['version']} {facts['last_modified']}"

    def _size(self, path: str) -> int:
        return self._call(path, lambda: obstore.head(self._backend, path)["size"])

    def _call(self, path: str, act: Callable[[], Result]) -> Result:
        with _resource_errors(path):
            return self._retry.call(act, is_passing=_is_passing)


class ObjectFile:
    """A multipart upload; invisible until `commit` completes it."""

    def __init__(self, backend: Backend, *, path: str) -> None:
        self._path = path
        self._backend = backend
        self._writer: WritableFile | None = obstore.open_writer(backend, path, buffer_size=_PART_BYTES)

    def write(self, data: memoryview, /) -> None:
        assert self._writer is not None, "write after discard"
        with _resource_errors(self._path):
            self._writer.write(bytes(data))  # it keeps a reference, and the caller uses its memory again

    def commit(self) -> None:
        assert self._writer is not None, "commit after discard"
        with _resource_errors(self._path):
            self._writer.close()

    def discard(self) -> None:
        """Drop what was not completed. Parts already sent are for the bucket's lifecycle rule to remove."""
        self._writer = None


class ObjectReader:
    """`RandomAccess` by ranged GETs that go on where they were cut off."""

    def __init__(self, backend: Backend, *, path: str, size_bytes: int, retry: Retry) -> None:
        self._backend = backend
        self._path = path
        self._retry = retry
        self.size_bytes = size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer)
        failures = 0
        with _resource_errors(self._path):
            while view:
                before = len(view)
                try:
                    for piece in self._stream(offset, len(view)):
                        view[: len(piece)] = piece
                        view, offset = view[len(piece) :], offset + len(piece)
                except (BaseError, OSError) as error:
                    cause: Exception = error
                else:
                    cause = ConnectionError(f"the answer ended {len(view)} bytes early")
                failures = 1 if len(view) < before else failures + 1
                if view:
                    self._wait_or_give_up(cause, failures, offset=offset)

    def close(self) -> None:
        """Nothing to close: connections belong to the backend."""

    def _stream(self, offset: int, size: int) -> Iterator[memoryview]:
        """The bytes of a range as they arrive."""
        answer = obstore.get(self._backend, self._path, options={"range": (offset, offset + size)})
        for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
            yield memoryview(piece)

    def _wait_or_give_up(self, cause: Exception, failures: int, *, offset: int) -> None:
        """Raises the cause when it will not pass, and IntegrityError when the object simply ends here."""
        if not _is_passing(cause):
            raise cause
        if failures == 1 and self._ends_at(offset):
            raise IntegrityError(
                f"{self._path} ends before byte {offset + 1}", outcome="truncated"
            ) from cause
        if failures >= self._retry.attempts:
            raise cause
        self._retry.wait(failures)

    def _ends_at(self, offset: int) -> bool:
        """Whether the storage says that the object has no byte here; False while it does not answer."""
        try:
            return bool(obstore.head(self._backend, self._path)["size"] <= offset)
        except (BaseError, OSError):
            return False


def _is_passing(error: Exception) -> bool:
    """Whether the same request may go well the next time."""
    is_said_for_good = any(word in str(error) for word in (*_NO_BUCKET, *_NO_LOGIN))
    return isinstance(error, BaseError | OSError) and not isinstance(error, _FINAL) and not is_said_for_good


@contextmanager
def _resource_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise FileNotFoundError(path) from None
    except AlreadyExistsError:
        raise
    except (BaseError, OSError) as error:
        reason, hint = _explain(error)
        where = f" at {path}" if path else ""
        raise ResourceError(f"object store failed{where}: {reason}", hint=hint, path=path) from error


def _explain(error: Exception) -> tuple[str, str]:
    """(what happened, what to do); the client's own words go over pages of its structures."""
    text = str(error)
    if any(word in text for word in _NO_BUCKET):
        return (
            "there is no such bucket",
            "look at the name behind `location` in config.toml, or of the source",
        )
    told = text.partition("\n")[0].removesuffix(":")
    if any(word in text for word in _NO_LOGIN) or isinstance(
        error, PermissionDeniedError | UnauthenticatedError
    ):
        hint = "name credentials that may read and write there in the environment; docs/tiers.md says how"
        return f"no credentials, or wrong ones: {told}", hint
    return told, "look at the connection and at what names the endpoint in the environment"

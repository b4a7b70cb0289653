"""Shards of a far-away bulk store through a folder on the node: ciphertext only, each byte fetched once.

Shards are kept in chunks of 4 MiB named by the shard's digest: equal bytes are kept once, and a version
that was deleted and written again never meets its predecessor's. A chunk is checked against the shard's
block list before it is kept, which needs no key, so bytes that a storage sends wrong are fetched again and
never served. A chunk that was cut short on the node's disk, and a tail that is no longer the shard's, are
fetched again. Expired shards are removed and refused.

Not covered: a bit that the node's disk changes in a chunk later: its frame is refused by its tag, again and
again until the cache's folder is removed. An expiry here is only as good as the caller's `expires`; it is the
key's destruction that makes data unreadable. File names, sizes and times show which shards a node reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from threading import Lock, local
from typing import Protocol, TypeAlias

from rsc.clock import Clock, SystemClock, timestamp
from rsc.errors import ConfigError, IntegrityError, KeyUnavailable, ResourceError
from rsc.store.bulk.interface import BulkStore, RandomAccess
from rsc.store.cache.chunk_folder import TAIL, CacheCounts, ChunkFolder, remove_all
from rsc.store.cache.read_plans import ReadPlan
from rsc.store.format.footer import BLOCK_BYTES, Tail, parse_tail, read_tail

CHUNK_BYTES = 4 * BLOCK_BYTES  # requests of 4 to 8 MiB fill a line to an object store with few connections
_CHUNK_BLOCKS = CHUNK_BYTES // BLOCK_BYTES
_MIN_CHUNKS = 4
_SLACK = 1 / 32  # of the limit; listing a folder of 10^5 chunks takes 0.5 s
_FETCHES = 4  # of bytes that are not the recorded ones, before it is an error


Line: TypeAlias = AbstractContextManager[object]
"""Turns on the line to the bulk store, among those that fetch ahead."""


class ShardCache(Protocol):
    """Where shards are read through: `NodeCache`, or `AskedCache` (asked.py) where there is no network."""

    def open(
        self, store: BulkStore, path: str, *, digest: bytes, size_bytes: int, expires: datetime | None = None
    ) -> CachedShard: ...

    def plan(self) -> CachePlan:
        """A new plan of what this process will use next."""
        ...


class CachePlan(Protocol):
    def publish(self, next_use_s: Mapping[str, float]) -> None:
        """Moments by chunk name, on CLOCK_MONOTONIC; replaces what was published before."""
        ...

    def close(self) -> None: ...


class ShardChunks(Protocol):
    """Where the chunks of one shard come from."""

    def descriptor(self, chunk: int, *, line: Line | None) -> int:
        """Of the whole, checked chunk; the caller closes it. Bytes of the bulk store move inside `line`; a
        reader that waits for them has none. Raises what `NodeCache.open` raises."""
        ...

    def read_tail(self) -> Tail: ...

    def close(self) -> None: ...


class NodeCache:
    """The cache of one node. Raises ConfigError for a limit below 16 MiB."""

    def __init__(self, folder: Path, *, limit_bytes: int, clock: Clock | None = None) -> None:
        if limit_bytes < _MIN_CHUNKS * CHUNK_BYTES:
            raise ConfigError(
                f"a cache of {limit_bytes} bytes is too small",
                hint="give it 16 MiB or more: `cache` in config.toml",
            )
        self._clock = clock or SystemClock()
        slack_bytes = int(limit_bytes * _SLACK)
        self.chunks = ChunkFolder(folder, limit_bytes=limit_bytes, slack_bytes=slack_bytes, clock=self._clock)
        self._of_thread = local()

    @property
    def folder(self) -> Path:
        return self.chunks.folder

    @property
    def counts(self) -> CacheCounts:
        """Since this object was made, in this process."""
        return self.chunks.counts

    def open(
        self, store: BulkStore, path: str, *, digest: bytes, size_bytes: int, expires: datetime | None = None
    ) -> CachedShard:
        """A shard of a bulk store.

        Raises KeyUnavailable where `expires` has passed, FileNotFoundError where the shard is missing, and
        IntegrityError where the store keeps sending other bytes than the manifest records.
        """
        source = _LazySource(lambda: store.open(path, size_bytes=size_bytes))
        chunks = FetchedChunks(self, source, name=path, digest=digest, size_bytes=size_bytes, expires=expires)
        return CachedShard(chunks, name=path, digest=digest, size_bytes=size_bytes)

    def plan(self) -> ReadPlan:
        return ReadPlan(self.folder)

    def check_expiry(self, digest: bytes, expires: datetime | None) -> None:
        """Raises KeyUnavailable, and removes what is cached of the shard, once `expires` has passed."""
        if expires is not None and self._clock.now() >= expires:
            self.forget(digest)
            raise KeyUnavailable(
                f"shard {digest.hex()[:12]} expired at {timestamp(expires)}", state="expired"
            )

    def chunk_buffer(self) -> memoryview:
        """Memory for one chunk, the same each time for a thread: fresh memory costs more than hashing it."""
        if not hasattr(self._of_thread, "buffer"):
            self._of_thread.buffer = memoryview(bytearray(CHUNK_BYTES))
        buffer: memoryview = self._of_thread.buffer
        return buffer

    def forget(self, digest: bytes) -> None:
        """Remove what is cached of a shard."""
        forget_chunks(self.folder, digest=digest)

    def sweep(self) -> None:
        """Remove what has expired and what dead processes left behind."""
        self.chunks.sweep()


def forget_chunks(folder: Path, *, digest: bytes) -> None:
    """Remove what the cache in `folder` holds of a shard; a cache that is not there holds nothing."""
    remove_all(folder, prefix=digest.hex())


class CachedShard:
    """`RandomAccess` to one shard; safe from any thread."""

    def __init__(self, chunks: ShardChunks, *, name: str, digest: bytes, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.digest = digest
        self._chunks = chunks
        self._name = name
        self.tail = chunks.read_tail()
        self._tail_bytes = self.tail.to_bytes()

    @property
    def num_chunks(self) -> int:
        return -(-self.tail.body_bytes // CHUNK_BYTES)

    def chunks_of(self, offset: int, *, size_bytes: int) -> range:
        """Numbers of the chunks that a range of the file touches."""
        stop = min(offset + size_bytes, self.tail.body_bytes)
        return range(offset // CHUNK_BYTES, -(-stop // CHUNK_BYTES))

    def chunk_name(self, chunk: int) -> str:
        return chunk_name(self.digest, chunk)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        view = memoryview(buffer)
        if offset + len(view) > self.size_bytes:
            raise IntegrityError(f"{self._name} ends before byte {offset + len(view)}", outcome="truncated")
        while view and offset < self.tail.body_bytes:
            chunk, inside = divmod(offset, CHUNK_BYTES)
            done = self._read_chunk_into(chunk, inside, view[: self.tail.body_bytes - offset])
            view, offset = view[done:], offset + done
        start = offset - self.tail.body_bytes
        view[:] = self._tail_bytes[start : start + len(view)]

    def hold(self, chunk: int, *, line: Line | None = None) -> None:
        """Make sure that a chunk is in the cache."""
        os.close(self._chunks.descriptor(chunk, line=line))

    def hold_tail(self) -> None:
        """Make sure that the tail is in the cache, where somebody else looks for it."""
        self._chunks.read_tail()

    def close(self) -> None:
        self._chunks.close()

    def _read_chunk_into(self, chunk: int, inside: int, view: memoryview) -> int:
        fd = self._chunks.descriptor(chunk, line=None)
        try:
            return os.preadv(fd, [view[: CHUNK_BYTES - inside]], inside)
        finally:
            os.close(fd)


def chunk_name(digest: bytes, chunk: int) -> str:
    return f"{digest.hex()}.{chunk}"


def tail_name(digest: bytes) -> str:
    return digest.hex() + TAIL


def chunk_bytes(chunk: int, *, body_bytes: int) -> int:
    """The last chunk of a shard may be short."""
    return min(CHUNK_BYTES, body_bytes - chunk * CHUNK_BYTES)


def tail_from(fd: int, *, size_bytes: int, digest: bytes) -> Tail | None:
    """The tail of a shard of `size_bytes` out of the cache; None where the disk gives back other bytes.

    Closes the descriptor.
    """
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        data = file.read()
    return parse_tail(data, size_bytes=size_bytes) if hashlib.sha256(data).digest() == digest else None


class FetchedChunks:
    """`ShardChunks` of this process's own cache, fetched from the bulk store where they are absent."""

    def __init__(
        self,
        cache: NodeCache,
        source: _LazySource,
        *,
        name: str,
        digest: bytes,
        size_bytes: int,
        expires: datetime | None,
    ) -> None:
        self._cache = cache
        self._source = source
        self._name = name
        self._digest = digest
        self._size_bytes = size_bytes
        self._expires = expires
        self._tail: Tail | None = None

    def descriptor(self, chunk: int, *, line: Line | None) -> int:
        self._cache.check_expiry(self._digest, self._expires)
        assert self._tail is not None, "the tail is read when the shard is opened"
        return self._cache.chunks.get(
            chunk_name(self._digest, chunk),
            expires=self._expires,
            fetch=lambda: self._fetch_chunk(chunk, line=line),
            size_bytes=chunk_bytes(chunk, body_bytes=self._tail.body_bytes),
        )

    def read_tail(self) -> Tail:
        """Whose hashes every chunk is checked against."""
        self._cache.check_expiry(self._digest, self._expires)
        name = tail_name(self._digest)
        for _ in range(_FETCHES):
            fd = self._cache.chunks.get(name, expires=self._expires, fetch=self._fetch_tail)
            self._tail = tail_from(fd, size_bytes=self._size_bytes, digest=self._digest)
            if self._tail is not None:
                return self._tail
            self._cache.chunks.drop(name)
        raise rotten(self._name)

    def close(self) -> None:
        self._source.close()

    def _fetch_tail(self) -> memoryview:
        """The shard's tail from the bulk store; its sha256 is the digest."""
        for attempt in range(_FETCHES):
            try:
                tail = read_tail(self._source.get())
            except IntegrityError:
                if attempt == _FETCHES - 1:
                    raise
                continue
            if tail.digest == self._digest:
                return memoryview(tail.to_bytes())
        raise IntegrityError(f"{self._name} is not the file that the manifest records here", outcome="header")

    def _fetch_chunk(self, chunk: int, *, line: Line | None) -> memoryview:
        """A chunk from the bulk store, every block checked; good until this thread fetches another."""
        assert self._tail is not None, "the tail is read when the shard is opened"
        start = chunk * CHUNK_BYTES
        data = self._cache.chunk_buffer()[: self._tail.body_bytes - start]
        for _ in range(_FETCHES):
            with line or nullcontext():
                self._source.get().read_into(start, data)
            bad = _bad_block(self._tail, chunk, data)
            if bad is None:
                return data
        raise IntegrityError(
            f"{self._name}: MiB {bad} arrived {_FETCHES} times without its recorded hash", outcome="frame"
        )


class _LazySource:
    """The shard in the bulk store, opened when it is first needed."""

    def __init__(self, open_source: Callable[[], RandomAccess]) -> None:
        self._open_source = open_source
        self._source: RandomAccess | None = None
        self._lock = Lock()

    def get(self) -> RandomAccess:
        with self._lock:
            if self._source is None:
                self._source = self._open_source()
            return self._source

    def close(self) -> None:
        with self._lock:
            if self._source is not None:
                self._source.close()


def rotten(name: str) -> ResourceError:
    """The cache's disk does not give back what was written."""
    return ResourceError(
        f"{name}: its tail was damaged in the cache {_FETCHES} times",
        hint="look at the disk under the cache's folder",
    )


def _bad_block(tail: Tail, chunk: int, data: memoryview) -> int | None:
    """The number of the first block of a chunk that does not have its recorded hash."""
    for number, start in enumerate(range(0, len(data), BLOCK_BYTES)):
        block = chunk * _CHUNK_BLOCKS + number
        if not tail.is_block(block, data[start : start + BLOCK_BYTES]):
            return block
    return None

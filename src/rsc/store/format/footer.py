"""The end of a container file: block hashes, sealed frame table, trailer. Readable without a key.

    body  = header and frames            tail = block list | sealed table | trailer
    block list   sha256 of each 1 MiB block of the body, counted from the start of the file
    trailer      magic (8) | body bytes u64 | number of frames u64 | file bytes u64

The digest of a file is the sha256 of its tail: 12 KiB bind 256 MiB, a reader checks it when it opens the
file, and whoever holds ciphertext only (a cache, an auditor) can check any single block that it fetched.

Not covered: hiding the size of the file. Frame boundaries are hidden, they are in the sealed table.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from rsc.errors import IntegrityError
from rsc.store.bulk.interface import RandomAccess
from rsc.store.format.suites import TAG_SIZES

HEADER_BYTES = 128
ENTRY_BYTES = 8
BLOCK_BYTES = 1 << 20
HASH_BYTES = 32
TRAILER_MAGIC = b"RSCend\r\n"
_TRAILER = struct.Struct("<8sQQQ")
TRAILER_BYTES = _TRAILER.size
MIN_FILE_BYTES = HEADER_BYTES + HASH_BYTES + min(TAG_SIZES) + TRAILER_BYTES
_FIRST_READ_BYTES = (
    1 << 16
)  # holds the whole tail of a file of up to half a GiB in 256 KiB frames: one request
_SEARCH_BYTES = 1 << 20
_MOST_SEARCHED_BYTES = 1 << 30  # a sparse file may be of any size


class BlockHasher:
    """sha256 of each block of a stream that is fed piece by piece."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._hash = hashlib.sha256()
        self._free = BLOCK_BYTES

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view) >= self._free:
            self._hash.update(view[: self._free])
            self._digests.append(self._hash.digest())
            view, self._hash, self._free = view[self._free :], hashlib.sha256(), BLOCK_BYTES
        self._hash.update(view)
        self._free -= len(view)

    def finish(self) -> bytes:
        """The block list, 32 bytes a block; the last block may be short."""
        if self._free < BLOCK_BYTES:
            self._digests.append(self._hash.digest())
        return b"".join(self._digests)


@dataclass(frozen=True)
class Tail:
    """A parsed tail. Its three lengths agree with each other and with the size of the file."""

    body_bytes: int
    num_frames: int
    size_bytes: int
    block_list: bytes
    sealed_table: bytes

    @cached_property
    def digest(self) -> bytes:
        """sha256 of the tail: what a manifest records for this file."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def trailer(self) -> bytes:
        return pack_trailer(
            body_bytes=self.body_bytes, num_frames=self.num_frames, size_bytes=self.size_bytes
        )

    @property
    def num_blocks(self) -> int:
        return len(self.block_list) // HASH_BYTES

    def to_bytes(self) -> bytes:
        return self.block_list + self.sealed_table + self.trailer

    def block_range(self, block: int) -> range:
        """File offsets of a block."""
        start = block * BLOCK_BYTES
        return range(start, min(start + BLOCK_BYTES, self.body_bytes))

    def is_block(self, block: int, data: bytes | memoryview) -> bool:
        """Whether these bytes are that block."""
        expected = self.block_list[block * HASH_BYTES : (block + 1) * HASH_BYTES]
        return hashlib.sha256(data).digest() == expected


def pack_trailer(*, body_bytes: int, num_frames: int, size_bytes: int) -> bytes:
    return _TRAILER.pack(TRAILER_MAGIC, body_bytes, num_frames, size_bytes)


def tail_bytes(*, body_bytes: int, num_frames: int, tag_bytes: int) -> int:
    """Length of the tail that belongs to such a body."""
    num_blocks = -(-body_bytes // BLOCK_BYTES)
    return num_blocks * HASH_BYTES + num_frames * ENTRY_BYTES + tag_bytes + TRAILER_BYTES


def read_tail(source: RandomAccess, *, tag_bytes: int | None = None, limit_bytes: int | None = None) -> Tail:
    """Parse the tail of a file, in one read for files up to about 1 GiB.

    `tag_bytes` is that of the file's suite; who has not looked at the header takes a tail of any suite.
    Raises IntegrityError: `truncated` (too short, or no trailer anywhere), `trailing` (bytes after the
    trailer), `frame` (a trailer whose numbers contradict each other, or tell of a tail above the limit).
    """
    size = source.size_bytes
    if size < MIN_FILE_BYTES:
        raise IntegrityError(f"{size} bytes are fewer than an empty file has", outcome="truncated")
    end = _read(source, start=max(0, size - _FIRST_READ_BYTES), stop=size)
    if end[-TRAILER_BYTES:].startswith(TRAILER_MAGIC):
        length = _tail_length(end, size=size, tag_sizes=TAG_SIZES if tag_bytes is None else {tag_bytes})
        if limit_bytes is not None and length > limit_bytes:
            raise IntegrityError(f"a tail of {length} bytes in a file of {size}", outcome="frame")
        return parse_tail(
            end if length <= len(end) else _read(source, start=size - length, stop=size), size_bytes=size
        )
    raise _no_trailer(source)


def parse_tail(end: bytes, *, size_bytes: int) -> Tail:
    """The tail out of the last bytes of a file of `size_bytes`. Raises IntegrityError as `read_tail`."""
    length = _tail_length(end, size=size_bytes, tag_sizes=TAG_SIZES)
    _, body_bytes, num_frames, _ = _TRAILER.unpack(end[-TRAILER_BYTES:])
    tail = end[-length:]
    table_start = -(-body_bytes // BLOCK_BYTES) * HASH_BYTES
    return Tail(
        body_bytes=body_bytes,
        num_frames=num_frames,
        size_bytes=size_bytes,
        block_list=tail[:table_start],
        sealed_table=tail[table_start:-TRAILER_BYTES],
    )


def _tail_length(end: bytes, *, size: int, tag_sizes: Collection[int]) -> int:
    """What the trailer says, once its numbers agree with each other and with the size of the file."""
    _, body_bytes, num_frames, size_bytes = _TRAILER.unpack(end[-TRAILER_BYTES:])
    if size_bytes != size:
        outcome = "truncated" if size_bytes > size else "trailing"
        raise IntegrityError(f"the trailer says {size_bytes} bytes, the file has {size}", outcome=outcome)
    without_tag = tail_bytes(body_bytes=body_bytes, num_frames=num_frames, tag_bytes=0)
    tag_bytes = size - body_bytes - without_tag
    if body_bytes < HEADER_BYTES or tag_bytes not in tag_sizes:
        raise IntegrityError(
            f"trailer numbers do not add up: body {body_bytes}, frames {num_frames}, file {size}",
            outcome="frame",
        )
    return int(size - body_bytes)


def bad_blocks(source: RandomAccess, tail: Tail) -> Iterator[int]:
    """Read the whole body, 1 MiB in memory at a time, and yield the number of each block that differs."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    for block in range(tail.num_blocks):
        span = tail.block_range(block)
        source.read_into(span.start, buffer[: len(span)])
        if not tail.is_block(block, buffer[: len(span)]):
            yield block


def _no_trailer(source: RandomAccess) -> IntegrityError:
    """Why the file does not end in a trailer: bytes were added after one, or its end is missing.

    Looks backwards, through the last GiB, for a trailer that ends where it says the file does; only damaged
    files come here.
    """
    stop = source.size_bytes
    while stop > max(0, source.size_bytes - _MOST_SEARCHED_BYTES):
        start = max(0, stop - _SEARCH_BYTES)
        piece = _read(source, start=start, stop=min(source.size_bytes, stop + TRAILER_BYTES - 1))
        found = piece.rfind(TRAILER_MAGIC)
        while found >= 0:
            fields = piece[found : found + TRAILER_BYTES]
            if len(fields) == TRAILER_BYTES and _TRAILER.unpack(fields)[3] == start + found + TRAILER_BYTES:
                extra = source.size_bytes - start - found - TRAILER_BYTES
                return IntegrityError(f"{extra} bytes follow the trailer", outcome="trailing")
            found = piece.rfind(TRAILER_MAGIC, 0, found + len(TRAILER_MAGIC) - 1)
        stop = start
    return IntegrityError(f"no trailer in {source.size_bytes} bytes: the end is missing", outcome="truncated")


def _read(source: RandomAccess, *, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    source.read_into(start, buffer)
    return bytes(buffer)

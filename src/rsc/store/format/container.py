"""One encrypted, authenticated file: the container of shards and checkpoints (docs/format.md).

    header (128) | frame 0 | ... | frame n-1 | block list | sealed frame table | trailer (32)

AES-256-GCM or AEGIS-256 (suites.py) in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015,
eprint 2015/189) with the nonce layout of the age file format: a big-endian counter, then 1 for the last frame
and 0 otherwise. The last frame is the frame table. Each file has its own keys: HKDF-SHA256 (RFC 5869) of the
data key and a random 32-byte salt gives the frame key, the key of the header's MAC, and a commitment to the
data key that is stored, so that no file decrypts under two keys. The header is associated data of all frames.

`context` says where the file belongs (data set, version, split, number); it enters the header's MAC and is
stored nowhere, so a file moved to another place fails with `header`.

Every failure is an IntegrityError whose `outcome` is one of: no_key header frame truncated trailing.

Not covered: file sizes and access patterns are visible; whoever holds the data key can write a new file
(the manifest's digest, checked when given, catches that one); replay of a whole older version.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag

from rsc.errors import DataError, IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import MappedAccess, RandomAccess
from rsc.store.bulk.outbox import Outbox, Sink
from rsc.store.format.footer import (
    HEADER_BYTES,
    BlockHasher,
    Tail,
    pack_trailer,
    read_tail,
    tail_bytes,
)
from rsc.store.format.schema import MAX_FRAME_BYTES
from rsc.store.format.suites import AES_256_GCM, SUITES, Buffer, Suite

MAGIC = b"\x89RSC\r\n\x1a\n"  # as PNG's: shows text-mode transfers and 7-bit paths at once
_VERSION = 1
_HEADER = struct.Struct("<8sHH20s32s32s32s")
_SALT_BYTES = 32
_MAC_START = HEADER_BYTES - 32
_ENTRY = np.dtype([("plain_bytes", "<u4"), ("num_samples", "<u4")])
_FRAME = np.dtype(
    [("offset", "<i8"), ("plain_bytes", "<i8"), ("num_samples", "<i8"), ("first_sample", "<i8")]
)
MAX_FRAMES = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What a manifest needs to know of a finished file. `digest` is the sha256 of its tail."""

    digest: bytes
    size_bytes: int
    num_frames: int
    num_samples: int


class ContainerWriter:
    """Writes frames to `file` in order, a little behind its caller; nothing is valid before `finish`.

    What the file raises comes out of a later call. Whoever gives up calls `discard` before it lets go of the
    file. Not thread-safe.
    """

    def __init__(
        self,
        file: Sink,
        *,
        key: SecretKey,
        context: bytes,
        suite: Suite = AES_256_GCM,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._suite = suite
        self._blocks = BlockHasher()
        self._outbox = Outbox(file, look=self._blocks.update)
        salt = random_bytes(_SALT_BYTES)
        with _FileKeys(key, salt=salt, suite=suite) as keys:
            self._header = _make_header(keys, salt=salt, suite=suite, context=context)
            self._aead = suite.aead(keys.frame)
        self._entries: list[tuple[int, int]] = []
        self.body_bytes = 0
        self._reserve(len(self._header))[:] = self._header

    def write_frame(self, buffer: Buffer, *, num_samples: int) -> None:
        """Encrypt and write one frame of whole samples. Raises DataError above 1 GiB or 2^32 - 1 frames."""
        plain = memoryview(buffer).cast("B")
        if len(plain) > MAX_FRAME_BYTES or len(self._entries) == MAX_FRAMES:
            raise DataError(f"frame {len(self._entries)} of {len(plain)} bytes is above the format's limits")
        nonce = self._suite.nonce(len(self._entries), is_last=False)
        self._aead.encrypt_into(nonce, plain, self._header, self._reserve(len(plain) + self._suite.tag_bytes))
        self._entries.append((len(plain), num_samples))

    def finish(self) -> ContainerRecord:
        """Write the tail. The file stays open: making it durable is its owner's part."""
        num_frames = len(self._entries)
        self._outbox.show_rest()
        block_list = self._blocks.finish()
        nonce = self._suite.nonce(num_frames, is_last=True)
        table = np.array(self._entries, _ENTRY).tobytes()
        sealed_table = self._aead.encrypt(nonce, table, self._header + block_list)
        size = self.body_bytes + tail_bytes(
            body_bytes=self.body_bytes, num_frames=num_frames, tag_bytes=self._suite.tag_bytes
        )
        trailer = pack_trailer(body_bytes=self.body_bytes, num_frames=num_frames, size_bytes=size)
        tail = block_list + sealed_table + trailer
        self._outbox.reserve(len(tail))[:] = tail
        self._outbox.finish()
        return ContainerRecord(
            digest=hashlib.sha256(tail).digest(),
            size_bytes=size,
            num_frames=num_frames,
            num_samples=sum(num_samples for _, num_samples in self._entries),
        )

    def discard(self) -> None:
        """Return when nothing writes to the file any more. Safe after `finish`."""
        self._outbox.discard()

    def _reserve(self, size: int) -> memoryview:
        """Room for the next bytes of the body."""
        self.body_bytes += size
        return self._outbox.reserve(size)


class ContainerReader:
    """Opens a container and reads its frames in any order, from any thread.

    `frames` is a numpy table: offset (in the file), plain_bytes, num_samples, first_sample. Opening reads
    the header and the tail only. With `expected_digest` a file other than the recorded one is `header`.
    """

    def __init__(
        self,
        source: RandomAccess,
        *,
        key: SecretKey,
        context: bytes,
        expected_digest: bytes | None = None,
    ) -> None:
        self.source = source
        self._mapped = source if isinstance(source, MappedAccess) else None
        self._header = _read_header(source)
        self.suite = SUITES[_suite_number(self._header)]
        with _FileKeys(key, salt=self._header[32:64], suite=self.suite) as keys:
            _check_header(keys, self._header, context=context)
            self._aead = self.suite.aead(keys.frame)
        self.tail = read_tail(source, tag_bytes=self.suite.tag_bytes)
        self.frames = self._open_table(self.tail)
        # Plain lists: asked for every frame, where a look-up in a structured array takes 15 times as long.
        self._offsets: list[int] = self.frames["offset"].tolist()
        self._plain_bytes: list[int] = self.frames["plain_bytes"].tolist()
        if expected_digest is not None and self.tail.digest != expected_digest:
            raise IntegrityError("this is not the file that the manifest records here", outcome="header")

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def num_samples(self) -> int:
        return int(self.frames["num_samples"].sum())

    def read_frame(self, index: int) -> bytearray:
        """Plaintext of one frame in a new buffer."""
        plain = bytearray(int(self.frames["plain_bytes"][index]))
        self.read_frame_into(index, plain)
        return plain

    def read_frame_into(self, index: int, buffer: Buffer, *, scratch: bytearray | None = None) -> int:
        """Decrypt one frame to the start of `buffer`; returns its length.

        `scratch` (plain_bytes and a tag, or more) takes the ciphertext and saves an allocation a call. Raises
        IntegrityError `frame`; then `buffer` holds zeros where the frame would be, never plaintext.
        """
        size = self._plain_bytes[index] + self.suite.tag_bytes
        offset = self._offsets[index]
        if self._mapped is not None:
            return self.open_frame_into(index, self._mapped.view(offset, size), buffer)
        sealed = memoryview(scratch if scratch is not None else bytearray(size))[:size]
        self.source.read_into(offset, sealed)
        return self.open_frame_into(index, sealed, buffer)

    def open_frame_into(self, index: int, sealed: Buffer, buffer: Buffer) -> int:
        """As `read_frame_into`, for ciphertext and tag that the caller already fetched."""
        size = self._plain_bytes[index]
        plain = memoryview(buffer).cast("B")[:size]
        try:
            self._aead.decrypt_into(self.suite.nonce(index, is_last=False), sealed, self._header, plain)
        except InvalidTag:
            plain[:] = bytes(size)  # the library leaves unauthenticated plaintext behind
            raise IntegrityError(
                f"frame {index} of {self.num_frames} failed authentication", outcome="frame", frame=index
            ) from None
        return size

    def close(self) -> None:
        """Close the source and drop the cipher, which wipes its key."""
        self.source.close()
        del self._aead

    def _open_table(self, tail: Tail) -> np.ndarray[Any, np.dtype[Any]]:
        nonce = self.suite.nonce(tail.num_frames, is_last=True)
        try:
            table = self._aead.decrypt(nonce, tail.sealed_table, self._header + tail.block_list)
        except InvalidTag:
            raise IntegrityError("the frame table failed authentication", outcome="frame") from None
        return _frame_table(
            np.frombuffer(table, _ENTRY), body_bytes=tail.body_bytes, tag_bytes=self.suite.tag_bytes
        )


class _FileKeys:
    """The three secrets of one file; wiped on exit."""

    def __init__(self, key: SecretKey, *, salt: bytes, suite: Suite) -> None:
        self.frame = key.derive(salt=salt, info=suite.label + b"frame")
        self.mac = key.derive(salt=salt, info=suite.label + b"header")
        self.commitment = key.derive(salt=salt, info=suite.label + b"commitment")

    def __enter__(self) -> _FileKeys:
        return self

    def __exit__(self, *_: object) -> None:
        for key in (self.frame, self.mac, self.commitment):
            key.close()


def _make_header(keys: _FileKeys, *, salt: bytes, suite: Suite, context: bytes) -> bytes:
    start = (MAGIC, _VERSION, suite.number, bytes(20), salt, bytes(keys.commitment.view))
    unsigned = _HEADER.pack(*start, bytes(32))[:_MAC_START]
    return unsigned + _header_mac(keys, unsigned, context=context)


def _header_mac(keys: _FileKeys, unsigned: bytes, *, context: bytes) -> bytes:
    return hmac.digest(keys.mac.view, unsigned + context, "sha256")


def _read_header(source: RandomAccess) -> bytes:
    """The public part of the header: is this such a file at all, in a version that we know?"""
    header = bytearray(min(source.size_bytes, HEADER_BYTES))
    source.read_into(0, header)
    if header[:8] != MAGIC[: len(header)]:
        raise IntegrityError("not a container file (magic)", outcome="header")
    if len(header) < HEADER_BYTES:
        raise IntegrityError(f"{len(header)} bytes, a header has {HEADER_BYTES}", outcome="truncated")
    _, version, suite, reserved, *_ = _HEADER.unpack(header)
    if (version, reserved) != (_VERSION, bytes(20)) or suite not in SUITES:
        raise IntegrityError(
            f"container version {version}, suite {suite} is not known to this program",
            hint="read it with a newer release",
            outcome="header",
        )
    return bytes(header)


def _suite_number(header: bytes) -> int:
    return int.from_bytes(header[10:12], "little")


def _check_header(keys: _FileKeys, header: bytes, *, context: bytes) -> None:
    if not hmac.compare_digest(header[64:_MAC_START], keys.commitment.view):
        raise IntegrityError("the key is not the one that wrote this file", outcome="no_key")
    if not hmac.compare_digest(header[_MAC_START:], _header_mac(keys, header[:_MAC_START], context=context)):
        raise IntegrityError("the header was changed, or the file lies in a place it was not written for",
                             outcome="header")  # fmt: skip


def _frame_table(
    entries: np.ndarray[Any, np.dtype[Any]], *, body_bytes: int, tag_bytes: int
) -> np.ndarray[Any, np.dtype[Any]]:
    """Add offsets and first samples. Frames must be within the limit and fill the body exactly."""
    if len(entries) and int(entries["plain_bytes"].max()) > MAX_FRAME_BYTES:
        raise IntegrityError(f"the table has a frame above {MAX_FRAME_BYTES} bytes", outcome="frame")
    frames = np.zeros(len(entries), _FRAME)
    frames["plain_bytes"], frames["num_samples"] = entries["plain_bytes"], entries["num_samples"]
    sealed = frames["plain_bytes"] + tag_bytes
    frames["offset"] = HEADER_BYTES + np.cumsum(sealed) - sealed
    frames["first_sample"] = np.cumsum(frames["num_samples"]) - frames["num_samples"]
    end = HEADER_BYTES + int(sealed.sum())
    if end != body_bytes:
        outcome = "truncated" if end > body_bytes else "trailing"
        raise IntegrityError(f"frames end at {end}, the body at {body_bytes}", outcome=outcome)
    return frames

"""A bulk tier of any size whose bytes are computed when they are read: an exabyte without a disk.

The reading code is the real one; this only answers `read_into`. What it serves follows docs/format.md: a
root, a Merkle tree over all shards, and shards of 512 frames of 512 KiB. Two things are not computed,
because no machine could: the digest of a shard that is not in `real` is 32 zeros (opening such a shard is
refused as `header`; 4x10^9 real digests would be 250 GB of hashing), and the block lists of shards are
zeros (an exabyte would have to be hashed; a reader authenticates the list, only `verify` re-hashes blocks).

Each sample holds its own global number in its first four tokens, so that what arrives can be checked.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from rsc.errors import ResourceError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkFile, RandomAccess
from rsc.store.format.footer import BLOCK_BYTES, HASH_BYTES, HEADER_BYTES, pack_trailer, tail_bytes
from rsc.store.format.manifest import ENTRY, FAN_OUT, ManifestTotals, level_sizes, page_digest
from rsc.store.format.root import Root, SplitRecord, shard_context
from rsc.store.format.schema import Field, Schema
from rsc.store.format.suites import AES_256_GCM

NAME, SPLIT, VERSION_ID = "virtual", "train", "0" * 32
SAMPLE_TOKENS, FRAME_SAMPLES, SHARD_FRAMES = 1024, 256, 512
SCHEMA = Schema((Field("tokens", "tensor", "uint16", (SAMPLE_TOKENS,)),))
SHARD_SAMPLES = FRAME_SAMPLES * SHARD_FRAMES
_PLAIN_BYTES = FRAME_SAMPLES * SAMPLE_TOKENS * 2
_SEALED_BYTES = _PLAIN_BYTES + AES_256_GCM.tag_bytes
_BODY_BYTES = HEADER_BYTES + SHARD_FRAMES * _SEALED_BYTES
SHARD_BYTES = _BODY_BYTES + tail_bytes(
    body_bytes=_BODY_BYTES, num_frames=SHARD_FRAMES, tag_bytes=AES_256_GCM.tag_bytes
)


class Computed:
    """A `RandomAccess` over parts that a function makes when they are touched."""

    def __init__(self, size_bytes: int, *, read: Callable[[int, memoryview], None]) -> None:
        self.size_bytes = size_bytes
        self._read = read

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        self._read(offset, memoryview(buffer))

    def close(self) -> None:
        pass


class VirtualShard:
    """One shard, frame by frame."""

    def __init__(self, shard: int, *, key: SecretKey) -> None:
        self._shard = shard
        salt = hashlib.sha256(b"virtual shard %d" % shard).digest()
        secrets = [
            key.derive(salt=salt, info=b"rsc-container-1 " + word)
            for word in (b"frame", b"header", b"commitment")
        ]
        start = b"\x89RSC\r\n\x1a\n" + struct.pack("<HH", 1, 1) + bytes(20) + salt + bytes(secrets[2].view)
        context = shard_context(name=NAME, version_id=VERSION_ID, split=SPLIT, shard=shard)
        self._header = start + hmac.digest(secrets[1].view, start + context, "sha256")
        self._aead = secrets[0].aead()

    @cached_property
    def tail(self) -> bytes:
        blocks = bytes(-(-_BODY_BYTES // BLOCK_BYTES) * HASH_BYTES)
        table = struct.pack("<II", _PLAIN_BYTES, FRAME_SAMPLES) * SHARD_FRAMES
        nonce = AES_256_GCM.nonce(SHARD_FRAMES, is_last=True)
        sealed = self._aead.encrypt(nonce, table, self._header + blocks)
        return (
            blocks
            + sealed
            + pack_trailer(body_bytes=_BODY_BYTES, num_frames=SHARD_FRAMES, size_bytes=SHARD_BYTES)
        )

    def read(self, offset: int, buffer: memoryview) -> None:
        """Any range: header, frames, tail."""
        while len(buffer):
            piece = self._from(offset)[: len(buffer)]
            buffer[: len(piece)] = piece
            buffer, offset = buffer[len(piece) :], offset + len(piece)

    def _from(self, offset: int) -> bytes:
        if offset < HEADER_BYTES:
            return self._header[offset:]
        if offset >= _BODY_BYTES:
            return self.tail[offset - _BODY_BYTES :]
        frame, inside = divmod(offset - HEADER_BYTES, _SEALED_BYTES)
        return self._frame(frame)[inside:]

    def _frame(self, frame: int) -> bytes:
        first = self._shard * SHARD_SAMPLES + frame * FRAME_SAMPLES
        tokens = np.zeros((FRAME_SAMPLES, SAMPLE_TOKENS), "<u2")
        tokens[:, :4] = np.arange(first, first + FRAME_SAMPLES, dtype="<u8")[:, None].view("<u2")
        return self._aead.encrypt(AES_256_GCM.nonce(frame, is_last=False), tokens.tobytes(), self._header)


class VirtualManifest:
    """The Merkle tree over `num_shards` shards. All pages of a level without a real shard below are alike."""

    def __init__(self, num_shards: int, *, digests: dict[int, bytes]) -> None:
        self._digests = digests
        self._sizes = level_sizes(num_shards)
        self._starts = [sum(self._sizes[:level]) * ENTRY.itemsize for level in range(len(self._sizes) + 1)]
        self.size_bytes = self._starts[-1]
        # Pages to compute one by one: those above a real shard, and the last of each level (it is shorter).
        self._special = {
            (level, shard // FAN_OUT ** (level + 1))
            for level in range(len(self._sizes))
            for shard in (*digests, num_shards - 1)
        }
        self._above: dict[tuple[int, int], bytes] = {}

    @property
    def totals(self) -> ManifestTotals:
        top = len(self._sizes) - 1
        root = np.frombuffer(self._entry_above(top, page=0), ENTRY)[0]
        return ManifestTotals(
            merkle_root=root["digest"].tobytes(),
            **{name: int(root[name]) for name in ("num_shards", "num_samples", "num_frames", "size_bytes")},
        )

    def read(self, offset: int, buffer: memoryview) -> None:
        level = next(level for level in range(len(self._sizes)) if offset < self._starts[level + 1])
        first = (offset - self._starts[level]) // ENTRY.itemsize
        buffer[:] = self._entries(level, first=first, count=len(buffer) // ENTRY.itemsize)

    def _entries(self, level: int, *, first: int, count: int) -> bytes:
        if level > 0:
            return b"".join(self._entry_above(level - 1, page=page) for page in range(first, first + count))
        entries = np.zeros(count, ENTRY)
        for name, value in (
            ("size_bytes", SHARD_BYTES),
            ("num_samples", SHARD_SAMPLES),
            ("num_frames", SHARD_FRAMES),
        ):
            entries[name] = value
        entries["num_shards"] = 1
        for shard, digest in self._digests.items():
            if first <= shard < first + count:
                entries["digest"][shard - first] = np.void(digest)
        return entries.tobytes()

    def _entry_above(self, level: int, *, page: int) -> bytes:
        """The entry of a page in the level above; pages that are alike share one."""
        key = (level, page if (level, page) in self._special else -1)
        if key not in self._above:
            first = page * FAN_OUT
            count = min(FAN_OUT, self._sizes[level] - first)
            data = self._entries(level, first=first, count=count)
            entries = np.frombuffer(data, ENTRY)
            sums = (
                int(entries[name].sum()) for name in ("size_bytes", "num_samples", "num_frames", "num_shards")
            )
            self._above[key] = np.array([(page_digest(data, level=level), *sums)], ENTRY).tobytes()
        return self._above[key]


class VirtualStore:
    """A read-only `BulkStore` with one data set of one split; the shards in `real` can be opened."""

    renames_folders = False

    def __init__(self, num_shards: int, *, key: SecretKey, real: set[int]) -> None:
        self._key = key
        digests = {shard: hashlib.sha256(VirtualShard(shard, key=key).tail).digest() for shard in real}
        self._manifest = VirtualManifest(num_shards, digests=digests)
        split = SplitRecord.of(SCHEMA, self._manifest.totals)
        self._root = Root(
            name=NAME,
            version_id=VERSION_ID,
            created="2026-11-21T09:00:00.000Z",
            splits={SPLIT: split},
            policy_sha256="0" * 64,
            report_sha256="0" * 64,
            facts={},
        ).to_bytes()

    def open(self, path: str, *, size_bytes: int | None = None) -> RandomAccess:
        if path.endswith("root.json"):
            return Computed(len(self._root), read=self._read_root)
        if path.endswith(".manifest"):
            return Computed(self._manifest.size_bytes, read=self._manifest.read)
        if path.endswith(".rsc"):
            shard = VirtualShard(int(path.rpartition("/")[2].removesuffix(".rsc")), key=self._key)
            return Computed(SHARD_BYTES, read=shard.read)
        raise FileNotFoundError(path)

    def children(self, folder: str) -> list[str]:
        return {"": [NAME], NAME: ["v0001"], f"{NAME}/v0001": ["root.json", SPLIT, f"{SPLIT}.manifest"]}.get(
            folder, []
        )

    def walk(self, folder: str) -> Iterator[str]:
        raise ResourceError("a virtual store cannot list its shards: there may be 4x10^9")

    def _read_root(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self._root[offset : offset + len(buffer)]

    def _refuse(self, *_: object, **__: object) -> BulkFile:
        raise ResourceError("a virtual store is read-only")

    create = put = put_if_absent = delete = delete_folder = publish = _refuse

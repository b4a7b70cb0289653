"""The unpublished end of the log: one block per commit, appended and synced before anybody is answered.

    "RSCT" | u32 body size | u32 count | u64 first index | 16 bytes of SHA-256 of these 20     (big-endian)
    count x 32-byte leaf hashes | count x (u16 length, entry) | signed checkpoint of the tree with them

The checkpoint inside makes every commit tamper-evident at once, not only at the next publication;
the leaf hashes tell *which* record of a block was changed.

A crash can leave the last block short, or with whole sectors of zeros (blocks allocated, data not
written). Only that counts as torn and is dropped; anything else that does not check is damage, and
the log refuses to go on.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsc.audit.merkle import HASH_BYTES, Frontier
from rsc.audit.note import TreeHead, Verifier, open_checkpoint
from rsc.audit.tiles import decode_bundle, encode_bundle
from rsc.errors import IntegrityError

_HEADER = struct.Struct(">4sIIQ")
_MAGIC = b"RSCT"
_CHECK_BYTES = 16
HEADER_BYTES = _HEADER.size + _CHECK_BYTES
_SECTOR_BYTES = 512  # the smallest unit that a disk writes as a whole


@dataclass(frozen=True)
class LogBlock:
    first: int
    leaves: list[bytes]
    entries: list[bytes]
    note: bytes
    end: int
    """Offset behind the block in the tail file."""


def encode_block(*, first: int, entries: Sequence[bytes], leaves: Sequence[bytes], note: bytes) -> bytes:
    body = b"".join(leaves) + encode_bundle(entries) + note
    header = _HEADER.pack(_MAGIC, len(body), len(entries), first)
    return header + hashlib.sha256(header).digest()[:_CHECK_BYTES] + body


def blocks(data: bytes, *, base: int, first: int) -> Iterator[LogBlock]:
    """Parse whole blocks from `data`, which starts at file offset `base`; `first` is the next index there.

    Stops before a torn last block. Raises IntegrityError (with `record`) for a damaged header. Contents
    are not checked here.
    """
    offset = 0
    while offset < len(data):
        if _is_torn(data, offset, base=base):
            return
        _, body_bytes, count, index = _HEADER.unpack_from(data, offset)
        if not _header_checks(data, offset):
            raise IntegrityError(f"the log is damaged at record {first}", outcome="header", record=first)
        start, end = offset + HEADER_BYTES, offset + HEADER_BYTES + body_bytes
        hashes_end = start + count * HASH_BYTES
        leaves = [data[i : i + HASH_BYTES] for i in range(start, hashes_end, HASH_BYTES)]
        entries, note = _split_entries(data[hashes_end:end], count)
        yield LogBlock(first=index, leaves=leaves, entries=entries, note=note, end=base + end)
        offset, first = end, index + count


def check_block(
    block: LogBlock, *, before: Frontier, verifier: Verifier
) -> tuple[Frontier, list[tuple[int, str]]]:
    """Replay a block over the tree `before` it: (tree after, [(record, what is wrong)]).

    A changed entry or leaf hash is reported at its record; a changed checkpoint at the last record of
    the block.
    """
    problems = []
    after = before.copy()
    last = block.first + len(block.leaves) - 1
    for index, leaf in enumerate(block.leaves, start=block.first):
        position = index - block.first
        entry = block.entries[position] if position < len(block.entries) else None
        if entry is None or hashlib.sha256(b"\x00" + entry).digest() != leaf:
            problems.append((index, "the entry does not match its hash"))
        after.add(leaf)
    try:
        signed = open_checkpoint(block.note, verifier=verifier)
    except IntegrityError as error:
        return after, [*problems, (last, error.message)]
    if signed != TreeHead(origin=verifier.name, size=after.size, root=after.root()) and not problems:
        problems.append((last, "the records do not match the signed checkpoint"))
    return after, problems


def _split_entries(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    entries: list[bytes] = []
    used = 0
    for entry in decode_bundle(data):
        if len(entries) == count:
            break
        entries.append(entry)
        used += 2 + len(entry)
    return entries, data[used:]


def _header_checks(data: bytes, offset: int) -> bool:
    header = data[offset : offset + _HEADER.size]
    check = data[offset + _HEADER.size : offset + HEADER_BYTES]
    return header[:4] == _MAGIC and hashlib.sha256(header).digest()[:_CHECK_BYTES] == check


def _is_torn(data: bytes, offset: int, *, base: int) -> bool:
    """Whether an unfinished last write starts at `offset`: short, or with a sector of zeros."""
    if len(data) - offset < HEADER_BYTES:
        return True
    end = len(data)
    if _header_checks(data, offset):
        body_bytes: int = _HEADER.unpack_from(data, offset)[1]
        end = offset + HEADER_BYTES + body_bytes
        if end != len(data):
            return end > len(data)
    return _has_zero_sector(data, start=offset, end=end, base=base)


def _has_zero_sector(data: bytes, *, start: int, end: int, base: int) -> bool:
    while start < end:
        stop = min(end, start + _SECTOR_BYTES - (base + start) % _SECTOR_BYTES)
        if not any(data[start:stop]):
            return True
        start = stop
    return False

"""The published form of the log: static files as C2SP tlog-tiles lays them out.

    tile/<level>/<number>           256 hashes; of leaves at level 0, of the tiles of level k at level k+1
    tile/entries/<number>           256 entries, each behind a big-endian u16 length
    ... .p/<width>                  the same for the last, not yet full tile
    checkpoint                      signed note over the size and the root

Any tlog-tiles client can read the folder, also over plain HTTP. Full tiles never change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rsc.audit.disk import LogDisk
from rsc.audit.merkle import HASH_BYTES, Frontier, peak_ranges, perfect_root
from rsc.errors import IntegrityError

TILE_WIDTH = 256  # tlog-tiles: fixed by the specification
MAX_ENTRY_BYTES = 65535  # the u16 length of an entry bundle
_LENGTH = struct.Struct(">H")


def tile_path(level: int | str, number: int, *, width: int = TILE_WIDTH) -> str:
    """`tile/0/x001/x234/067`, with `.p/<width>` for a partial tile. `level` is `entries` for bundles."""
    text = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        text = f"x{number % 1000:03d}/{text}"
    return f"tile/{level}/{text}" + (f".p/{width}" if width < TILE_WIDTH else "")


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_bundle(data: bytes) -> Iterator[bytes]:
    """Yield entries; stops early, without raising, where the data ends or a length does not fit."""
    offset = 0
    while offset + _LENGTH.size <= len(data):
        end = offset + _LENGTH.size + _LENGTH.unpack_from(data, offset)[0]
        if end > len(data):
            return
        yield data[offset + _LENGTH.size : end]
        offset = end


def width_at(size: int, *, level: int, number: int) -> int:
    """How many hashes tile `number` of `level` holds in a tree of `size` leaves (0 when there is none)."""
    return max(0, min(TILE_WIDTH, (size >> (8 * level)) - number * TILE_WIDTH))


def read_tile(disk: LogDisk, *, size: int, level: int, number: int) -> list[bytes]:
    """Hashes of one tile of a tree of `size`. A partial tile may have been replaced by the full one since.

    Raises IntegrityError when neither is there or it is too short.
    """
    width = width_at(size, level=level, number=number)
    data = _read_either(disk, level=level, number=number, width=width)
    if data is None or len(data) < width * HASH_BYTES:
        raise IntegrityError(f"tile {number} of level {level} is missing or short", outcome="truncated")
    return [data[start : start + HASH_BYTES] for start in range(0, width * HASH_BYTES, HASH_BYTES)]


def read_bundle(disk: LogDisk, *, size: int, number: int) -> bytes | None:
    """Bytes of one entry bundle, or None when it is missing."""
    width = width_at(size, level=0, number=number)
    return _read_either(disk, level="entries", number=number, width=width)


def read_frontier(disk: LogDisk, *, size: int) -> Frontier:
    """The right edge of the published tree, from at most two tiles a level."""
    peaks = []
    for first, height in peak_ranges(size):
        level, below = divmod(height, 8)
        index = first >> (8 * level)
        tile = read_tile(disk, size=size, level=level, number=index // TILE_WIDTH)
        start = index % TILE_WIDTH
        peaks.append(perfect_root(tile[start : start + (1 << below)]))
    return Frontier(size=size, peaks=peaks)


@dataclass
class TilePlan:
    """Tiles to write, and folders of partial tiles that nobody needs once the full ones are published."""

    files: dict[str, bytes] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)

    def add(
        self,
        kind: int | str,
        *,
        old: int,
        pieces: Sequence[bytes],
        encode: Callable[[Sequence[bytes]], bytes],
    ) -> None:
        """Cut `pieces`, the first of which opens the tile that `old` pieces ended in, into tiles."""
        number, old_width = divmod(old, TILE_WIDTH)
        if old_width and len(pieces) >= TILE_WIDTH:
            self.replaced.append(f"{tile_path(kind, number)}.p")
        for start in range(0, len(pieces), TILE_WIDTH):
            part = pieces[start : start + TILE_WIDTH]
            self.files[tile_path(kind, number + start // TILE_WIDTH, width=len(part))] = encode(part)


def extend(disk: LogDisk, *, size: int, entries: Sequence[bytes], leaves: Sequence[bytes]) -> TilePlan:
    """The files that carry `entries` behind the first `size`."""
    layout = TilePlan()
    old_entries = list(decode_bundle(read_bundle(disk, size=size, number=size // TILE_WIDTH) or b""))
    tail = [*old_entries[: size % TILE_WIDTH], *entries]
    layout.add("entries", old=size, pieces=tail, encode=encode_bundle)
    level, hashes = 0, list(leaves)
    while hashes:
        count = size >> (8 * level)
        number = count // TILE_WIDTH
        old = read_tile(disk, size=size, level=level, number=number) if count % TILE_WIDTH else []
        tail = [*old, *hashes]
        layout.add(level, old=count, pieces=tail, encode=b"".join)
        full = len(tail) // TILE_WIDTH
        hashes = [perfect_root(tail[i * TILE_WIDTH : (i + 1) * TILE_WIDTH]) for i in range(full)]
        level += 1
    return layout


def _read_either(disk: LogDisk, *, level: int | str, number: int, width: int) -> bytes | None:
    for path in (tile_path(level, number, width=width), tile_path(level, number)):
        try:
            return disk.read(path)
        except FileNotFoundError:
            continue
    return None

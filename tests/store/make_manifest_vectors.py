"""Writes tests/vectors/manifest/: manifests with one expected outcome each, from primitives only.

    python -m tests.store.make_manifest_vectors

A vector is a head of `name: value` lines, an empty line, and the file. `root`, `shards`, `samples`, `frames`,
`bytes` are what root.json would say; for `ok`, `last` is the digest of the last shard.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "manifest"
FAN_OUT = 256
Entry = tuple[bytes, int, int, int, int]


@dataclass(frozen=True)
class Manifest:
    """Levels of entries, and what root.json says of them."""

    file: bytes
    root: bytes
    sums: tuple[int, int, int, int]
    last: bytes = b""

    def to_bytes(self, expect: str) -> bytes:
        size, samples, frames, shards = self.sums
        lines = [f"expect: {expect}", f"root: {self.root.hex()}", f"shards: {shards}", f"samples: {samples}"]
        lines += [f"frames: {frames}", f"bytes: {size}"]
        if expect == "ok" and self.last:
            lines.append(f"last: {self.last.hex()}")
        return "\n".join(lines).encode() + b"\n\n" + self.file


def pack(entry: Entry) -> bytes:
    return entry[0] + struct.pack("<QQQQ", *entry[1:])


def above(page: list[Entry], *, level: int) -> Entry:
    """The entry of a page, one level up."""
    digest = hashlib.sha256(b"rsc-manifest-1" + bytes([level]) + b"".join(map(pack, page))).digest()
    sums = [sum(entry[number] for entry in page) for number in range(1, 5)]
    return (digest, sums[0], sums[1], sums[2], sums[3])


def build(entries: list[Entry]) -> Manifest:
    """The file over level 0."""
    file, level, row = b"", 0, entries
    while True:
        file += b"".join(map(pack, row))
        pages = [row[start : start + FAN_OUT] for start in range(0, len(row), FAN_OUT)] or [[]]
        row = [above(page, level=level) for page in pages]
        if len(row) == 1:
            return Manifest(file, root=row[0][0], sums=row[0][1:], last=entries[-1][0] if entries else b"")
        level += 1


def shards(count: int) -> list[Entry]:
    return [(hashlib.sha256(b"shard %d" % n).digest(), 1000 + n, 10 + n % 3, 2, 1) for n in range(count)]


def flipped(manifest: Manifest, position: int) -> Manifest:
    file = bytearray(manifest.file)
    file[position] ^= 1
    return replace(manifest, file=bytes(file))


def vectors() -> dict[str, bytes]:
    """Name -> file; a name begins with the outcome."""
    return {name: manifest.to_bytes(name.partition("-")[0]) for name, manifest in _all()}


def _all() -> Iterator[tuple[str, Manifest]]:
    for count in (0, 1, 2, 255, 256, 257):
        yield f"ok-{count:03d}-shards", build(shards(count))
    five, two_levels = build(shards(5)), build(shards(257))
    for name, position in (
        ("digest", 0),
        ("bytes", 32),
        ("samples", 40),
        ("frames", 48),
        ("shards", 56),
        ("last", 319),
    ):
        yield f"frame-{name}", flipped(five, position)
    yield "frame-page-0", flipped(two_levels, 100)
    yield "frame-page-1", flipped(two_levels, 256 * 64 + 3)
    yield "frame-level-1", flipped(two_levels, 257 * 64)
    yield "frame-another-root", replace(five, root=build(shards(4)).root)
    for name, number in (("bytes", 0), ("samples", 1), ("frames", 2)):
        sums = list(five.sums)
        sums[number] += 1
        yield f"frame-root-says-more-{name}", replace(five, sums=(sums[0], sums[1], sums[2], sums[3]))
    swapped = shards(5)
    swapped[1], swapped[2] = swapped[2], swapped[1]
    yield "frame-swapped", replace(five, file=build(swapped).file)
    double = shards(4)
    double[1] = (*double[1][:4], 2)
    counted = build(double)
    yield "frame-entry-of-two-shards", replace(counted, file=counted.file + pack(double[3]))
    wraps = shards(2)
    wraps[0] = (wraps[0][0], 1000, 1 << 63, 2, 1)
    wraps[1] = (wraps[1][0], 1000, (1 << 63) + 7, 2, 1)
    around = build(wraps)
    yield "frame-sums-wrap-around", replace(around, sums=(2000, 7, 4, 2))
    for name, size in (("empty", 0), ("one-byte-less", 319), ("one-entry-less", 256)):
        yield f"truncated-{name}", replace(five, file=five.file[:size])
    yield "truncated-no-level-1", replace(two_levels, file=two_levels.file[: 257 * 64])
    yield "truncated-root-says-more-shards", replace(five, sums=(*five.sums[:3], 6))
    for name, extra in (("byte", b"\0"), ("entry", bytes(64)), ("level", pack(above(shards(5), level=0)))):
        yield f"trailing-{name}", replace(five, file=five.file + extra)
    yield "trailing-without-shards", replace(build([]), file=pack(shards(1)[0]))


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, content in vectors().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()

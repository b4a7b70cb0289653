"""The Merkle tree of RFC 6962 section 2.1: hashes, a frontier that grows, roots of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256(b"").digest()  # RFC 6962: the hash of an empty list
HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: list[bytes]) -> bytes:
    """Root over a power-of-two number of hashes of equal height."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


class Frontier:
    """The right edge of a growing tree: one hash per set bit of its size, largest subtree first.

    Adding a leaf costs one hash on average; the root costs at most 63. Memory does not grow with
    the log.
    """

    def __init__(self, *, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)
        assert len(self._peaks) == size.bit_count(), "one peak per set bit of the size"

    def copy(self) -> Frontier:
        return Frontier(size=self.size, peaks=self._peaks)

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The tree hash of RFC 6962 for the present size."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def peak_ranges(size: int) -> list[tuple[int, int]]:
    """(first leaf, height) of each perfect subtree of a tree of `size`, left to right."""
    ranges, first = [], 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            ranges.append((first, height))
            first += 1 << height
    return ranges

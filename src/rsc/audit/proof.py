"""Proofs that one state of the log is the beginning of a later one (RFC 6962, section 2.1.2).

Both sides are here: the log makes a proof from its tiles, a witness checks it with two roots alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rsc.audit.disk import LogDisk
from rsc.audit.merkle import node_hash, perfect_root
from rsc.audit.tiles import TILE_WIDTH, read_tile
from rsc.errors import IntegrityError

RangeRoot = Callable[[int, int], bytes]
"""Root over the leaves [first, last)."""


def consistency_proof(disk: LogDisk, *, old_size: int, size: int) -> list[bytes]:
    """Hashes that show the published tree of `size` to begin with the tree of `old_size`; empty from 0."""
    if not 0 < old_size < size:
        return []
    return _subproof(
        old_size, 0, size, is_whole=True, root=lambda a, b: range_root(disk, first=a, last=b, size=size)
    )


def range_root(disk: LogDisk, *, first: int, last: int, size: int) -> bytes:
    """Root over published leaves [first, last), where `first` is a multiple of the range's power of two."""
    count = last - first
    if count & (count - 1) == 0:
        level, below = divmod(count.bit_length() - 1, 8)
        index = first >> (8 * level)
        tile = read_tile(disk, size=size, level=level, number=index // TILE_WIDTH)
        start = index % TILE_WIDTH
        return perfect_root(tile[start : start + (1 << below)])
    split = first + _largest_power_below(count)
    left = range_root(disk, first=first, last=split, size=size)
    return node_hash(left, range_root(disk, first=split, last=last, size=size))


def check_consistency(
    proof: Sequence[bytes], *, old_size: int, old_root: bytes, size: int, root: bytes
) -> None:
    """Raises IntegrityError unless the proof shows the tree (size, root) to begin with (old_size, old_root).

    RFC 9162, section 2.1.4.2.
    """
    if old_size == 0:
        is_shown = not proof
    elif old_size == size:
        is_shown = not proof and old_root == root
    else:
        is_shown = 0 < old_size < size and _rebuild(proof, old_size, old_root, size) == (old_root, root)
    if not is_shown:
        raise IntegrityError(
            f"the log of {size} records does not begin with the one of {old_size}", outcome="frame"
        )


def _rebuild(proof: Sequence[bytes], old_size: int, old_root: bytes, size: int) -> tuple[bytes, bytes] | None:
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return None
    old_index, index = old_size - 1, size - 1
    while old_index & 1:
        old_index, index = old_index >> 1, index >> 1
    old, new = path[0], path[0]
    for sibling in path[1:]:
        if index == 0:
            return None
        if old_index & 1 or old_index == index:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while old_index and not old_index & 1:
                old_index, index = old_index >> 1, index >> 1
        else:
            new = node_hash(new, sibling)
        old_index, index = old_index >> 1, index >> 1
    return (old, new) if index == 0 else None


def _subproof(old: int, first: int, last: int, *, is_whole: bool, root: RangeRoot) -> list[bytes]:
    """SUBPROOF of RFC 6962 over the leaves [first, last); `old` counts from `first`."""
    count = last - first
    if old == count:
        return [] if is_whole else [root(first, last)]
    split = _largest_power_below(count)
    if old <= split:
        return [
            *_subproof(old, first, first + split, is_whole=is_whole, root=root),
            root(first + split, last),
        ]
    rest = _subproof(old - split, first + split, last, is_whole=False, root=root)
    return [*rest, root(first, first + split)]


def _largest_power_below(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)

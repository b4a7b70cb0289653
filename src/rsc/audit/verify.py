"""Re-check a whole log from its bytes: by its owner, or on another machine with only the public key.

One pass over the entries; memory does not grow with the log. Every hash of every tile is recomputed, so
any changed bit is reported, and at its record: a changed entry or leaf hash at that record, a changed
upper hash at the records below it, a changed checkpoint as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rsc.audit import tiles, write_ahead
from rsc.audit.disk import LogDisk
from rsc.audit.merkle import HASH_BYTES, Frontier, leaf_hash, perfect_root
from rsc.audit.note import TreeHead, Verifier, open_checkpoint
from rsc.errors import IntegrityError


@dataclass(frozen=True)
class LogProblem:
    """Records `first` to `last` cannot be trusted, and why. -1 to -1 is the published checkpoint itself."""

    first: int
    last: int
    what: str

    @property
    def where(self) -> str:
        if self.last < 0:
            return "checkpoint"
        return f"record {self.first}" if self.first == self.last else f"records {self.first}-{self.last}"


@dataclass(frozen=True)
class LogReport:
    origin: str
    size: int
    """Records found, published or not."""
    root: str
    """Hex of the tree hash over them."""
    problems: list[LogProblem]
    last_time: str | None
    """Time of the last readable record."""

    @property
    def is_intact(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_intact": self.is_intact}


@dataclass
class _Pass:
    """What the one pass carries along."""

    verifier: Verifier
    known: Mapping[int, bytes]
    frontier: Frontier = field(default_factory=Frontier)
    problems: list[LogProblem] = field(default_factory=list)
    last_entry: bytes = b""

    def add(self, leaf: bytes) -> None:
        self.frontier.add(leaf)
        expected = self.known.get(self.frontier.size)
        if expected is not None and expected != self.frontier.root():
            self.report(
                0, self.frontier.size - 1, f"differs from the witnessed checkpoint at {self.frontier.size}"
            )

    def report(self, first: int, last: int, what: str) -> None:
        self.problems.append(LogProblem(first, last, what))


def verify_log(disk: LogDisk, *, verifier: Verifier, known: Mapping[int, bytes] | None = None) -> LogReport:
    """Check every record, tile, block and signature under `disk`.

    `known` maps tree sizes to roots that somebody else remembers (a witness): the log must pass through
    each of them, and must not be shorter than the largest.
    """
    state = _Pass(verifier=verifier, known=known or {})
    published = _checkpoint(disk, state)
    for number in range(-(-published.size // tiles.TILE_WIDTH)):
        _check_leaf_tile(disk, state, size=published.size, number=number)
    _check_upper_tiles(disk, state, size=published.size)
    if published.root != state.frontier.root() and not state.problems:
        state.report(0, published.size - 1, "the records do not match the signed checkpoint")
    _check_tail(disk, state, published=published.size)
    if state.known and max(state.known) > state.frontier.size:
        state.report(
            state.frontier.size, max(state.known) - 1, "the witness has seen these records; they are gone"
        )
    return LogReport(
        origin=verifier.name,
        size=state.frontier.size,
        root=state.frontier.root().hex(),
        problems=state.problems,
        last_time=_time_of(state.last_entry),
    )


def _checkpoint(disk: LogDisk, state: _Pass) -> TreeHead:
    nothing = TreeHead(origin=state.verifier.name, size=0, root=Frontier().root())
    try:
        note = disk.read("checkpoint")
    except FileNotFoundError:
        return nothing
    try:
        return open_checkpoint(note, verifier=state.verifier)
    except IntegrityError as error:
        state.report(-1, -1, f"the published checkpoint: {error.message}")
        return nothing


def _check_leaf_tile(disk: LogDisk, state: _Pass, *, size: int, number: int) -> None:
    width = tiles.width_at(size, level=0, number=number)
    first = number * tiles.TILE_WIDTH
    bundle = tiles.read_bundle(disk, size=size, number=number) or b""
    entries = list(tiles.decode_bundle(bundle))[:width]
    expected = _tile(disk, state, size=size, level=0, number=number)
    _check_end(disk, state, size=size, level=0, number=number)
    for position in range(width):
        found = leaf_hash(entries[position]) if position < len(entries) else None
        if found != expected[position]:
            state.report(first + position, first + position, "the entry does not match its hash")
        state.add(found or expected[position])
    if entries:
        state.last_entry = entries[-1]
    if len(tiles.encode_bundle(entries)) != len(bundle) and not _may_be_longer(disk, size, number):
        state.report(first + width - 1, first + width - 1, "bytes follow the last entry of its bundle")


def _may_be_longer(disk: LogDisk, size: int, number: int) -> bool:
    """A partial bundle that is served by the full one holds more entries than this size knows."""
    width = tiles.width_at(size, level=0, number=number)
    return width < tiles.TILE_WIDTH and disk.size(tiles.tile_path("entries", number, width=width)) is None


def _tile(disk: LogDisk, state: _Pass, *, size: int, level: int, number: int) -> list[bytes]:
    """The hashes of a tile; when it is missing, hashes that match nothing."""
    try:
        return tiles.read_tile(disk, size=size, level=level, number=number)
    except IntegrityError as error:
        span = tiles.TILE_WIDTH ** (level + 1)
        state.report(number * span, min(size, (number + 1) * span) - 1, error.message)
        return [b""] * tiles.width_at(size, level=level, number=number)


def _check_end(disk: LogDisk, state: _Pass, *, size: int, level: int, number: int) -> None:
    """No byte follows the hashes of a tile."""
    width = tiles.width_at(size, level=level, number=number)
    size_bytes = disk.size(tiles.tile_path(level, number, width=width)) or 0
    if size_bytes > width * HASH_BYTES:
        last = min(size, (number * tiles.TILE_WIDTH + width) * tiles.TILE_WIDTH**level) - 1
        state.report(last, last, f"bytes follow the last hash of its tile of level {level}")


def _check_upper_tiles(disk: LogDisk, state: _Pass, *, size: int) -> None:
    """Hash j of level k + 1 must be the root of tile j of level k."""
    level = 1
    while size >> (8 * level):
        span = tiles.TILE_WIDTH**level
        for number, expected in _pairs(disk, state, size=size, level=level):
            below = _tile(disk, state, size=size, level=level - 1, number=number)
            if b"" not in below and perfect_root(below) != expected:
                state.report(number * span, (number + 1) * span - 1, f"a hash of level {level} is wrong")
        level += 1


def _pairs(disk: LogDisk, state: _Pass, *, size: int, level: int) -> Iterator[tuple[int, bytes]]:
    count = size >> (8 * level)
    for number in range(-(-count // tiles.TILE_WIDTH)):
        tile = _tile(disk, state, size=size, level=level, number=number)
        _check_end(disk, state, size=size, level=level, number=number)
        yield from enumerate(tile, start=number * tiles.TILE_WIDTH)


def _check_tail(disk: LogDisk, state: _Pass, *, published: int) -> None:
    try:
        data = disk.read("tail")
    except FileNotFoundError:
        return  # an exported copy has none
    try:
        for block in write_ahead.blocks(data, base=0, first=published):
            _check_block(block, state)
    except IntegrityError as error:
        record = error.facts["record"]
        state.report(record, record, error.message)


def _check_block(block: write_ahead.LogBlock, state: _Pass) -> None:
    if block.first < state.frontier.size:
        return
    if block.first > state.frontier.size:
        state.report(state.frontier.size, block.first - 1, "records are missing")
    _, problems = write_ahead.check_block(block, before=state.frontier, verifier=state.verifier)
    for record, what in problems:
        state.report(record, record, what)
    for leaf in block.leaves:
        state.add(leaf)
    state.last_entry = block.entries[-1] if block.entries else state.last_entry


def _time_of(entry: bytes) -> str | None:
    try:
        return str(json.loads(entry)["time"])
    except (ValueError, KeyError, TypeError):
        return None

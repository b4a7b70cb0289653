"""The tamper-evident log: every review, approval, release, denial, expiry, erasure and export.

`append` returns once the record is on disk and under a signed checkpoint. Threads and processes may
append at once: what queues up while one commit is being synced goes into the next, so the rate grows
with the load and stays one sync per commit.

    folder/log.vkey     verifier key, public: all that a second machine needs to verify
    folder/log.key      signing key, 0600, made at first use
    folder/tail         commits not yet in tiles (audit/write_ahead.py)
    folder/checkpoint, folder/tile/...    the published log (audit/tiles.py)

Not covered: somebody who can read log.key and write the folder can write a new history from scratch,
and anybody who can write the folder can cut the log back to an older signed checkpoint. A witness
(audit/witness.py) sees both, because it remembers checkpoints elsewhere. The log says what RSC did; it
cannot say what was done around RSC.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsc.audit import tiles, write_ahead
from rsc.audit.disk import LocalDisk, LogDisk
from rsc.audit.merkle import Frontier, leaf_hash
from rsc.audit.note import Signer, TreeHead, Verifier, open_checkpoint
from rsc.audit.verify import LogReport, verify_log
from rsc.clock import Clock, timestamp
from rsc.errors import ConfigError, IntegrityError

PUBLISH_TAIL_BYTES = 4 << 20  # above this a commit also publishes: opening re-reads at most this much


@dataclass
class _Waiting:
    """The records of one caller in the queue of the next commit."""

    entries: list[bytes]
    first: int = -1
    error: BaseException | None = None
    is_done: bool = False


@dataclass
class _Position:
    """What this process knows of the log; another process may have moved on."""

    frontier: Frontier
    published: bytes
    """The checkpoint that the tail goes on from: each publication signs a new one, then empties the tail. A
    file's own number would not do, because the next file may get the number of the one before."""
    tail_end: int
    unpublished: list[write_ahead.LogBlock] = field(default_factory=list)


@dataclass(frozen=True)
class Stretch:
    """The records from one number on, as they lie on disk, and the tree that all records add up to."""

    size: int
    root: bytes
    entries: Iterator[bytes]


class AuditLog:
    def __init__(self, disk: LogDisk, *, signer: Signer, clock: Clock) -> None:
        self._disk = disk
        self._signer = signer
        self._clock = clock
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._position: _Position | None = None

    @classmethod
    def open(cls, folder: Path, *, clock: Clock) -> AuditLog:
        """Open the log of a folder, or begin one with a new key."""
        return cls.open_disk(LocalDisk(folder), clock=clock)

    @classmethod
    def open_disk(cls, disk: LogDisk, *, clock: Clock) -> AuditLog:
        with disk.lock():
            return cls(disk, signer=_signer(disk), clock=clock)

    @property
    def signer(self) -> Signer:
        """Signs statements of this workspace about itself; a statement's first line tells its kind."""
        return self._signer

    @property
    def verifier(self) -> Verifier:
        return self._signer.verifier

    def append(self, kind: str, **facts: Any) -> int:
        """Add one record and return its index. It is durable and signed when this returns.

        It carries the `uid` of this process as the kernel says, unless the facts name another's.
        Facts are JSON values without personal text and without keys. Raises ConfigError for a record
        above 65,535 bytes, IntegrityError when the log on disk is damaged (nothing is added then).
        """
        return self.append_many([{"kind": kind, **facts}])

    def append_many(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Add records, each with its `kind`, in one commit; returns the index of the first."""
        waiting = _Waiting([self._encode(record) for record in records])
        with self._queue_lock:
            self._queue.append(waiting)
        with self._commit_lock:
            if not waiting.is_done:
                self._commit_queue()
        if waiting.error is not None:
            raise waiting.error
        return waiting.first

    def checkpoint(self) -> bytes:
        """Publish everything as tiles and return the signed checkpoint over it."""
        with self._commit_lock, self._disk.lock():
            self._publish(self._catch_up()[0])
            return self._disk.read("checkpoint")

    def entries(self, *, data: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield records in order, each with its `index`; only those about data set `data` when given.

        Reads what was there when it was called. Entries are not verified here: `verify` does that.
        """
        with self._commit_lock, self._disk.lock():
            position, _ = self._catch_up()
            unpublished = list(position.unpublished)
        published = unpublished[0].first if unpublished else position.frontier.size
        every = _entries_from(self._disk, 0, published=published, recent=unpublished)
        for index, entry in enumerate(every):
            record = json.loads(entry)
            if data is None or record.get("data") == data:
                yield {"index": index, **record}

    def read_on(self, start: int) -> Stretch:
        """Records `start` and later, as of now.

        Whoever decides by them adds them up to `root`: published ones are read as they lie in the bundles.
        """
        with self._commit_lock, self._disk.lock():
            position, _ = self._catch_up()
            size, root = position.frontier.size, position.frontier.root()
            published = position.unpublished[0].first if position.unpublished else size
            recent: list[write_ahead.LogBlock] = []
            for block in reversed(position.unpublished):
                if block.first + len(block.entries) <= start:
                    break
                recent.append(block)
        return Stretch(size, root, _entries_from(self._disk, start, published=published, recent=recent[::-1]))

    def verify(self, *, known: Mapping[int, bytes] | None = None) -> LogReport:
        """Re-check every record, hash and signature of the log on disk; `known` as in `verify_log`."""
        return verify_log(self._disk, verifier=self.verifier, known=known)

    def _encode(self, record: Mapping[str, Any]) -> bytes:
        stamped = {"time": timestamp(self._clock.now()), **record}
        stamped.setdefault("uid", os.getuid())
        entry = json.dumps(stamped, separators=(",", ":")).encode()
        if len(entry) > tiles.MAX_ENTRY_BYTES:
            raise ConfigError(f"an audit record of {len(entry)} bytes is above {tiles.MAX_ENTRY_BYTES}")
        return entry

    def _commit_queue(self) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            first = self._commit([entry for waiting in batch for entry in waiting.entries])
        except BaseException as error:
            for waiting in batch:
                waiting.is_done, waiting.error = True, error
            return
        for waiting in batch:
            waiting.is_done, waiting.first = True, first
            first += len(waiting.entries)

    def _commit(self, entries: list[bytes]) -> int:
        with self._disk.lock():
            position, dropped_bytes = self._catch_up()
            told = (
                [self._encode({"kind": "log_recovered", "dropped_bytes": dropped_bytes})]
                if dropped_bytes
                else []
            )
            first = position.frontier.size
            self._append_block(position, [*told, *entries])
            if position.tail_end > PUBLISH_TAIL_BYTES:
                self._publish(position)
        return first + len(told)

    def _append_block(self, position: _Position, entries: list[bytes]) -> None:
        leaves = [leaf_hash(entry) for entry in entries]
        first, after = position.frontier.size, position.frontier.copy()
        for leaf in leaves:
            after.add(leaf)
        note = TreeHead(origin=self.verifier.name, size=after.size, root=after.root()).signed(self._signer)
        data = write_ahead.encode_block(first=first, entries=entries, leaves=leaves, note=note)
        self._disk.append("tail", data)
        position.frontier = after
        position.tail_end += len(data)
        position.unpublished.append(write_ahead.LogBlock(first, leaves, entries, note, position.tail_end))

    def _publish(self, position: _Position) -> None:
        """Move the tail into tiles. Order: tiles, then the checkpoint over them, then an empty tail."""
        self._position = (
            None  # until it is through; a failure half-way makes the next call read the disk anew
        )
        if position.unpublished:
            size = position.unpublished[0].first
            layout = tiles.extend(
                self._disk,
                size=size,
                entries=[entry for block in position.unpublished for entry in block.entries],
                leaves=[leaf for block in position.unpublished for leaf in block.leaves],
            )
            self._disk.put_many(layout.files)
            self._disk.put("checkpoint", position.unpublished[-1].note)
            self._disk.put("tail", b"")
            for path in layout.replaced:
                self._disk.delete_folder(path)
        elif position.frontier.size == 0:
            empty = TreeHead(origin=self.verifier.name, size=0, root=position.frontier.root())
            self._disk.put("checkpoint", empty.signed(self._signer))
        self._position = _Position(
            position.frontier, self._disk.read("checkpoint"), self._disk.size("tail") or 0
        )

    def _catch_up(self) -> tuple[_Position, int]:
        """Read what other processes added (the lock is held): (position, bytes of a torn write dropped)."""
        tail_bytes = self._disk.size("tail") or 0
        published = _published(self._disk)
        position = self._position
        if position is None or position.published != published or tail_bytes < position.tail_end:
            position = _Position(self._read_published(), published, 0)
        dropped_bytes = 0
        if tail_bytes != position.tail_end:
            self._position = None
            dropped_bytes = self._read_tail(position, tail_bytes)
        self._position = position
        return position, dropped_bytes

    def _read_published(self) -> Frontier:
        published = read_checkpoint(self._disk, verifier=self.verifier)
        frontier = tiles.read_frontier(self._disk, size=published.size)
        if frontier.root() != published.root:
            raise _damaged(published.size - 1, "the tiles do not match the signed checkpoint")
        return frontier

    def _read_tail(self, position: _Position, tail_bytes: int) -> int:
        data = self._disk.read("tail", offset=position.tail_end)
        found = write_ahead.blocks(data, base=position.tail_end, first=position.frontier.size)
        for block in found:
            position.tail_end = block.end
            if block.first < position.frontier.size:
                continue  # published before a crash kept the tail from being emptied
            if block.first > position.frontier.size:
                raise _damaged(position.frontier.size, "records are missing")
            position.frontier, problems = write_ahead.check_block(
                block, before=position.frontier, verifier=self.verifier
            )
            if problems:
                raise _damaged(*problems[0])
            position.unpublished.append(block)
        if position.tail_end < tail_bytes:
            self._disk.truncate("tail", position.tail_end)
        return tail_bytes - position.tail_end


def read_checkpoint(disk: LogDisk, *, verifier: Verifier) -> TreeHead:
    """The published checkpoint; size 0 before the first publication. Raises IntegrityError."""
    note = _published(disk)
    if not note:
        return TreeHead(origin=verifier.name, size=0, root=Frontier().root())
    return open_checkpoint(note, verifier=verifier)


def _published(disk: LogDisk) -> bytes:
    """The signed note of the last publication; empty before the first."""
    try:
        return disk.read("checkpoint")
    except FileNotFoundError:
        return b""


def _signer(disk: LogDisk) -> Signer:
    """The log's key; a folder without one gets an empty tail and then a key, in this order.

    Records without a key are not begun anew: they would be lost, and with them what they tell.
    """
    try:
        signer = Signer.from_text(disk.read("log.key").decode())
    except FileNotFoundError:
        if disk.size("tail") or disk.size("checkpoint"):
            raise _damaged(0, "its signing key log.key is missing") from None
        signer = Signer.generate("openrsc")
        disk.put("tail", b"")
        disk.put("log.vkey", signer.verifier.to_text().encode() + b"\n")
        disk.put("log.key", signer.to_text().encode())
    if disk.size("tail") is None:
        raise _damaged(0, "the tail file is missing")
    return signer


def _entries_from(
    disk: LogDisk, start: int, *, published: int, recent: list[write_ahead.LogBlock]
) -> Iterator[bytes]:
    number, skipped = divmod(start, tiles.TILE_WIDTH)
    for bundle in range(number, -(-published // tiles.TILE_WIDTH) if start < published else number):
        content = tiles.read_bundle(disk, size=published, number=bundle)
        width = tiles.width_at(published, level=0, number=bundle)
        found = list(tiles.decode_bundle(content or b""))
        if len(found) < width:
            raise _damaged(bundle * tiles.TILE_WIDTH + len(found), "its entry bundle is missing or broken")
        yield from found[skipped if bundle == number else 0 : width]
    for block in recent:
        yield from block.entries[max(0, start - block.first) :]


def _damaged(record: int, what: str) -> IntegrityError:
    return IntegrityError(
        f"the audit log is damaged at record {record}: {what}",
        hint="`rsc audit verify` lists every damaged record; restore the folder from a copy",
        outcome="frame",
        record=record,
    )

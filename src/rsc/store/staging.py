"""Versions that are still being written: where they lie, what they wrote down, how they are found again.

`progress.json` is put at each checkpoint of a writer: how many shards of each split are finished, and the
caller's own position in its sources (public values only; it is not encrypted). A folder without it can
only be removed: by the next import into the data set, or by `rsc keys sweep`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError, IntegrityError
from rsc.keys.envelope import Envelope
from rsc.store.bulk.interface import BulkStore, read_all
from rsc.store.bulk.locations import Location, open_store
from rsc.store.format.root import check_name, shard_path, version_folder, version_number
from rsc.store.format.schema import Schema

STAGING = ".staging-"
_FORMAT = "rsc-progress-1"


@dataclass(frozen=True, slots=True)
class StagedProgress:
    """What a checkpoint says: finished shards of each split, and the caller's position."""

    schemas: dict[str, Schema]
    num_shards: dict[str, int]
    position: dict[str, Any]

    def to_bytes(self) -> bytes:
        record = {
            "format": _FORMAT,
            "schemas": {split: schema.to_dict() for split, schema in self.schemas.items()},
            "num_shards": self.num_shards,
            "position": self.position,
        }
        return json.dumps(record).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StagedProgress:
        """Inverse of `to_bytes`. Raises IntegrityError (outcome `header`) for anything else."""
        try:
            record = json.loads(data)
            if record["format"] != _FORMAT:
                raise ValueError(record["format"])
            schemas = {
                check_name(split): Schema.from_dict(fields) for split, fields in record["schemas"].items()
            }
            num_shards = {split: int(record["num_shards"][split]) for split in schemas}
            return cls(schemas=schemas, num_shards=num_shards, position=dict(record["position"]))
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError, RecursionError):
            raise IntegrityError("progress.json is not a checkpoint of a writer", outcome="header") from None


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder of a data set against imports, erasures and ends of it, of any process on this machine.

    Raises ConfigError while another one runs.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(
            f"another import into {folder.name}, or an erasure or end of data in it, is running",
            hint="try again when it is done; an import that you stop goes on when it is started again",
        ) from None
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Unfinished:
    """A version that was started and neither published nor removed."""

    store: BulkStore
    folder: str
    name: str
    version_id: str

    def progress(self) -> StagedProgress | None:
        """The last checkpoint; None where there was none."""
        try:
            return StagedProgress.from_bytes(read_all(self.store.open(self.progress_path)))
        except FileNotFoundError:
            return None

    def envelope(self) -> Envelope:
        """The wrapped key that it is written with. Raises IntegrityError when it was never put."""
        try:
            return Envelope.from_json(read_all(self.store.open(f"{self.folder}/key.json")))
        except FileNotFoundError:
            raise IntegrityError(f"{self.folder}/key.json is missing", outcome="no_key") from None

    def replace_envelope(self, envelope: Envelope) -> None:
        """The same data key, wrapped anew. Only while nobody writes it."""
        self.store.put(f"{self.folder}/key.json", envelope.to_json().encode())

    def is_resumable(self) -> bool:
        """Whether it says where it stands."""
        try:
            return self.progress() is not None
        except IntegrityError:
            return False

    @property
    def progress_path(self) -> str:
        return f"{self.folder}/progress.json"

    def remove_after(self, progress: StagedProgress) -> None:
        """Delete what was written after that checkpoint, files that were never completed included."""
        kept = {f"{self.folder}/{name}" for name in ("key.json", "claim", "progress.json")}
        for split, num_shards in progress.num_shards.items():
            kept |= {shard_path(self.folder, split=split, shard=shard) for shard in range(num_shards)}
        for path in list(self.store.walk(self.folder)):
            if path not in kept:
                self.store.delete(path)

    def remove(self) -> None:
        """Delete everything that was written."""
        self.store.delete_folder(self.folder)


def claim(store: BulkStore, *, name: str, version_id: str) -> Unfinished:
    """Begin a version: a staging folder, or, where nothing can be renamed, the next number."""
    if store.renames_folders:
        return Unfinished(store, folder=f"{name}/{STAGING}{version_id}", name=name, version_id=version_id)
    version = last_claimed(store, name) + 1
    while not store.put_if_absent(f"{version_folder(name, version)}/claim", version_id.encode()):
        version += 1
    return Unfinished(store, folder=version_folder(name, version), name=name, version_id=version_id)


def last_claimed(store: BulkStore, name: str) -> int:
    """The highest version number that is taken, finished or not; 0 for none."""
    return max((version_number(child) or 0 for child in store.children(name)), default=0)


def list_unfinished(location: Location, name: str) -> list[Unfinished]:
    """Versions of a data set that were started and not finished.

    One may be in the hands of a running writer: whoever resumes or removes it makes sure that none is.
    """
    store = open_store(location)
    return [
        unfinished
        for child in store.children(check_name(name))
        if (unfinished := _unfinished(store, name=name, child=child)) is not None
    ]


def abandoned(folder: Path) -> Iterator[Unfinished]:
    """Versions that nobody writes and nobody can go on with: their writer was killed before it had said where
    it stands. Only for a folder of data sets that no other machine writes into.

    Each is yielded while no import can begin beside it, so that the caller may remove it.
    """
    for place in sorted(folder.glob(f"*/{STAGING}*")):
        name = place.parent.name
        begun = Unfinished(open_store(folder), f"{name}/{place.name}", name, place.name.removeprefix(STAGING))
        if begun.is_resumable():
            continue  # seen before anything is held: looking must not be in the way of an import that begins
        try:
            with only_writer(place.parent):
                if place.is_dir() and not begun.is_resumable():
                    yield begun
        except ConfigError:
            continue  # in the hands of an import or an erasure


def _unfinished(store: BulkStore, *, name: str, child: str) -> Unfinished | None:
    folder = f"{name}/{child}"
    if child.startswith(STAGING):
        return Unfinished(store, folder=folder, name=name, version_id=child.removeprefix(STAGING))
    if version_number(child) is None or "root.json" in store.children(folder):
        return None
    try:
        version_id = read_all(store.open(f"{folder}/claim")).decode()
    except FileNotFoundError:
        return None
    return Unfinished(store, folder=folder, name=name, version_id=version_id)

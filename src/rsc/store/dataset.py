"""Data set versions: write one that appears whole or not at all, open one by its root, check one.

In a folder a version is built in `.staging-<hex>` and appears by one rename. In an object store a writer
claims the next version number, puts its objects there, and `root.json` last and only if absent: a version
without `root.json` does not exist for any reader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from rsc.clock import Clock, parse_timestamp, timestamp
from rsc.errors import ConfigError, IntegrityError, ResourceError
from rsc.store.files import BulkStore, read_all
from rsc.store.keys import Envelope
from rsc.store.locations import Location, open_store
from rsc.store.manifest import ManifestTotals
from rsc.store.root import (
    Root,
    SplitRecord,
    check_name,
    review_path,
    root_hash,
    version_folder,
    version_number,
)
from rsc.store.schema import Columns, Schema
from rsc.store.secret import SecretKey
from rsc.store.splits import SplitPlace, SplitReader, SplitWriter
from rsc.store.verify import VerifyReport, verify_dataset

FRAME_BYTES = 512 << 10  # 256 KiB to 1 MiB decrypt at 15 GB per CPU second; smaller and larger are slower
SHARD_BYTES = 256 << 20
STAGING = ".staging-"


@dataclass(frozen=True, slots=True)
class DatasetRef:
    name: str
    version: int
    version_id: str
    root_hash: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    schema: Schema
    num_samples: int
    num_shards: int
    num_frames: int
    size_bytes: int
    merkle_root: str


class DatasetWriter:
    """Append columns to splits, then `commit`. As a context manager it aborts what was not committed."""

    def __init__(
        self,
        store: BulkStore,
        *,
        folder: str,
        name: str,
        version_id: str,
        writers: dict[str, SplitWriter],
        envelope: Envelope,
        clock: Clock,
    ) -> None:
        self._store = store
        self._folder = folder
        self._name = name
        self._version_id = version_id
        self._writers = writers
        self._envelope = envelope
        self._clock = clock
        self._is_open = True

    @classmethod
    def create(
        cls,
        location: Location,
        *,
        name: str,
        schemas: dict[str, Schema],
        key: SecretKey,
        envelope: Envelope,
        clock: Clock,
        frame_bytes: int = FRAME_BYTES,
        shard_bytes: int = SHARD_BYTES,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> DatasetWriter:
        """Start a version. `key` is the one in `envelope` and stays the caller's to close."""
        store = open_store(location)
        version_id = random_bytes(16).hex()
        folder = _claim_folder(store, name=check_name(name), version_id=version_id)
        writers: dict[str, SplitWriter] = {}
        writer = cls(
            store,
            folder=folder,
            name=name,
            version_id=version_id,
            writers=writers,
            envelope=envelope,
            clock=clock,
        )
        with writer._giving_up():
            for split, schema in schemas.items():
                place = SplitPlace(
                    store, folder=folder, name=name, version_id=version_id, split=check_name(split)
                )
                writers[split] = SplitWriter(
                    place,
                    schema=schema,
                    key=key,
                    frame_bytes=frame_bytes,
                    shard_bytes=shard_bytes,
                    random_bytes=random_bytes,
                )
        return writer

    def append(self, split: str, columns: Columns) -> None:
        """Add samples to a split. Raises DataError where they do not fit its schema (nothing is added), and
        ResourceError when the storage fails (then the whole version is given up)."""
        try:
            self._writers[split].append(columns)
        except ResourceError:
            self._give_up()
            raise

    def commit(self, *, policy: bytes, report: bytes, facts: dict[str, Any]) -> DatasetRef:
        """Finish all splits and publish the version. After an error nothing of it is visible."""
        with self._giving_up():
            splits = {
                split: SplitRecord.of(writer.schema, writer.finish())
                for split, writer in self._writers.items()
            }
            root = Root(
                name=self._name,
                version_id=self._version_id,
                created=timestamp(self._clock.now()),
                splits=splits,
                policy_sha256=hashlib.sha256(policy).hexdigest(),
                report_sha256=hashlib.sha256(report).hexdigest(),
                facts=facts,
            ).to_bytes()
            self._store.put(review_path(self._folder, "policy.toml"), policy)
            self._store.put(review_path(self._folder, "report.json"), report)
            self._store.put(f"{self._folder}/key.json", self._envelope.to_json().encode())
            version = self._publish(root)
        self._is_open = False
        return DatasetRef(
            name=self._name, version=version, version_id=self._version_id, root_hash=root_hash(root)
        )

    def abort(self) -> None:
        """Remove everything written. Safe after a failure and after `commit` (then it does nothing)."""
        if not self._is_open:
            return
        self._is_open = False
        for writer in self._writers.values():
            writer.discard()
        self._store.delete_folder(self._folder)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Abort while another error is on its way."""
        with suppress(ResourceError):
            self.abort()

    def _publish(self, root: bytes) -> int:
        """Make the version visible; returns its number."""
        root_path = f"{self._folder}/root.json"
        if not self._store.renames_folders:
            if not self._store.put_if_absent(root_path, root):
                raise ResourceError(f"{root_path} appeared while this version was written")
            version = version_number(self._folder.rpartition("/")[2])
            assert version is not None, "object stores write straight into a claimed version"
            return version
        self._store.put(root_path, root)
        version = _last_claimed(self._store, self._name) + 1
        while not self._store.publish(self._folder, version_folder(self._name, version)):
            version += 1
        return version


class Dataset:
    """One version, opened by its root.json. Reading samples needs the key; everything here does not."""

    def __init__(self, store: BulkStore, *, root: Root, root_bytes: bytes, version: int) -> None:
        self.store = store
        self.folder = version_folder(root.name, version)
        self.name = root.name
        self.version = version
        self.version_id = root.version_id
        self.root_hash = root_hash(root_bytes)
        self.policy_sha256 = root.policy_sha256
        self.report_sha256 = root.report_sha256
        self.facts = root.facts
        self.splits = {name: _split_info(split) for name, split in root.splits.items()}
        self._root = root

    @classmethod
    def open(cls, location: Location, *, name: str, version: int | None = None) -> Dataset:
        """The newest version, or the one asked for.

        Raises ConfigError when there is none, IntegrityError when root.json is not one.
        """
        store = open_store(location)
        versions = list_versions(store, check_name(name))
        wanted = version if version is not None else max(versions, default=0)
        if wanted not in versions:
            known = ", ".join(str(number) for number in versions) or "none"
            what = name if version is None else f"{name} version {version}"
            raise ConfigError(
                f"there is no data set {what} here (versions: {known})", hint="see `rsc data ls`"
            )
        data = read_all(store.open(f"{version_folder(name, wanted)}/root.json"))
        root = Root.from_bytes(data)
        if root.name != name:
            raise IntegrityError(f"the root in {name} belongs to data set {root.name}", outcome="header")
        return cls(store, root=root, root_bytes=data, version=wanted)

    @property
    def created(self) -> datetime:
        return parse_timestamp(self._root.created)

    def envelope(self) -> Envelope:
        """Raises IntegrityError when key.json is missing or is not an envelope."""
        try:
            return Envelope.from_json(read_all(self.store.open(f"{self.folder}/key.json")))
        except FileNotFoundError:
            raise IntegrityError(f"{self.folder}/key.json is missing", outcome="no_key") from None

    def replace_envelope(self, envelope: Envelope) -> None:
        """Key rotation: readers see the old envelope or the new one; data and review stay as they are."""
        self.store.put(f"{self.folder}/key.json", envelope.to_json().encode())

    def read_review(self, name: str) -> bytes | None:
        """A file of the review folder, such as `report.json`; None where there is none.

        The bytes are as found: compare policy.toml and report.json with `policy_sha256`, `report_sha256`.
        """
        try:
            return read_all(self.store.open(review_path(self.folder, name)))
        except FileNotFoundError:
            return None

    def write_review(self, name: str, data: bytes) -> None:
        """Write or replace a file of the review folder, atomically."""
        self.store.put(review_path(self.folder, name), data)

    def list_review(self) -> list[str]:
        """Names that `read_review` takes, sorted."""
        start = f"{self.folder}/review/"
        return sorted(path.removeprefix(start) for path in self.store.walk(start.rstrip("/")))

    def place(self, split: str) -> SplitPlace:
        """Raises ConfigError for a split that the version does not have."""
        if split not in self.splits:
            raise ConfigError(f"{self.name} has no split {split!r}", hint=f"it has: {', '.join(self.splits)}")
        return SplitPlace(
            self.store, folder=self.folder, name=self.name, version_id=self.version_id, split=split
        )

    def totals(self, split: str) -> ManifestTotals:
        return self._root.splits[self.place(split).split].totals

    def split(self, name: str, *, key: SecretKey) -> SplitReader:
        """Raises ConfigError for an unknown split. A wrong key shows when the first shard is opened."""
        return SplitReader(
            self.place(name), schema=self.splits[name].schema, totals=self.totals(name), key=key
        )

    def verify(self, *, key: SecretKey | None = None) -> VerifyReport:
        """Read and re-hash every byte against the root; with the key also authenticate every frame."""
        return verify_dataset(
            [(self.place(split), self.totals(split)) for split in self.splits],
            store=self.store,
            recorded={
                review_path(self.folder, "policy.toml"): self.policy_sha256,
                review_path(self.folder, "report.json"): self.report_sha256,
            },
            key=key,
        )

    def delete(self) -> None:
        """Remove the version. It stops to exist first (one rename, or its root.json), then its bytes go."""
        if self.store.renames_folders:
            trash = f"{self.name}/{STAGING}{self.version_id}"
            self.store.publish(self.folder, trash)
            self.store.delete_folder(trash)
        else:
            self.store.delete(f"{self.folder}/root.json")
            self.store.delete_folder(self.folder)


def list_versions(location: Location, name: str) -> list[int]:
    """Numbers of the versions that exist (have a root.json), ascending."""
    store = open_store(location)
    numbers = [version_number(child) for child in store.children(name)]
    return sorted(
        number
        for number in numbers
        if number is not None and "root.json" in store.children(version_folder(name, number))
    )


def list_datasets(location: Location) -> list[tuple[str, list[int]]]:
    """Every data set that has a version, by name, with its version numbers."""
    store = open_store(location)
    found = [(name, list_versions(store, name)) for name in store.children("") if _is_name(name)]
    return [(name, versions) for name, versions in found if versions]


def _claim_folder(store: BulkStore, *, name: str, version_id: str) -> str:
    """Where a new version is built: a staging folder, or, where nothing can be renamed, a claimed number."""
    if store.renames_folders:
        return f"{name}/{STAGING}{version_id}"
    version = _last_claimed(store, name) + 1
    while not store.put_if_absent(f"{version_folder(name, version)}/claim", version_id.encode()):
        version += 1
    return version_folder(name, version)


def _last_claimed(store: BulkStore, name: str) -> int:
    return max((version_number(child) or 0 for child in store.children(name)), default=0)


def _split_info(split: SplitRecord) -> SplitInfo:
    return SplitInfo(
        schema=Schema.from_dict(split.fields),
        num_samples=split.num_samples,
        num_shards=split.num_shards,
        num_frames=split.num_frames,
        size_bytes=split.size_bytes,
        merkle_root=split.merkle_root,
    )


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ConfigError:
        return False
    return True

"""Data set versions: list them, open one by its root, read its splits, check it byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rsc.clock import parse_timestamp
from rsc.errors import ConfigError, IntegrityError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, read_all
from rsc.store.bulk.locations import Location, open_store
from rsc.store.cache.node_cache import NodeCache, ShardCache
from rsc.store.ended import ENDED, ended_root
from rsc.store.format.manifest import ManifestTotals, ShardRecord
from rsc.store.format.root import (
    Root,
    SplitRecord,
    check_name,
    is_review_name,
    review_path,
    root_hash,
    version_folder,
    version_number,
)
from rsc.store.format.schema import Schema
from rsc.store.splits import SplitPlace, SplitReader, open_manifest
from rsc.store.staging import STAGING
from rsc.store.verify import VerifyPart, VerifyReport, verify_dataset
from rsc.store.writer import DatasetRef, DatasetWriter

__all__ = [
    "Dataset",
    "DatasetRef",
    "DatasetWriter",
    "SplitInfo",
    "list_datasets",
    "list_names",
    "list_versions",
]


@dataclass(frozen=True, slots=True)
class SplitInfo:
    schema: Schema
    num_samples: int
    num_shards: int
    num_frames: int
    size_bytes: int
    merkle_root: str


class Dataset:
    """One version, opened by its root.json. Reading samples needs the key; everything here does not."""

    def __init__(
        self,
        store: BulkStore,
        *,
        root: Root,
        root_bytes: bytes,
        version: int,
        cache: ShardCache | None = None,
        expires: datetime | None = None,
    ) -> None:
        self.store = store
        self._cache = cache
        self._expires = expires
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
    def open(
        cls,
        location: Location,
        *,
        name: str,
        version: int | None = None,
        cache: ShardCache | None = None,
        expires: datetime | None = None,
    ) -> Dataset:
        """The newest version, or the one asked for.

        Shards are read through `cache` where one is given; from `expires` on it removes and refuses them.

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
        path = f"{version_folder(name, wanted)}/root.json"
        data = read_all(store.open(path))
        try:
            root = Root.from_bytes(data)
        except IntegrityError as error:
            raise IntegrityError(f"{path}: {error.message}", outcome="header") from None
        if root.name != name:
            raise IntegrityError(f"the root in {name} belongs to data set {root.name}", outcome="header")
        return cls(store, root=root, root_bytes=data, version=wanted, cache=cache, expires=expires)

    @property
    def is_ended(self) -> bool:
        """Whether its papers are those of an ended version. Only the log proves that it is one."""
        return ENDED in self.facts

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

    def end_papers(self, *, report: bytes) -> str:
        """Of a version whose key is destroyed: put `report` and a root without words of the source in the
        place of what lies there. Returns the new root's hash. Can be done again after a crash."""
        report_sha256 = hashlib.sha256(report).hexdigest()
        root = ended_root(self._root, root_hash=self.root_hash, report_sha256=report_sha256)
        self.write_review("report.json", report)
        self.store.put(f"{self.folder}/root.json", root.to_bytes())
        return root_hash(root.to_bytes())

    def list_review(self) -> list[str]:
        """Names that `read_review` takes, sorted."""
        start = f"{self.folder}/review/"
        names = (path.removeprefix(start) for path in self.store.walk(start.rstrip("/")))
        return sorted(name for name in names if is_review_name(name))

    def place(self, split: str) -> SplitPlace:
        """Raises ConfigError for a split that the version does not have."""
        if split not in self.splits:
            raise ConfigError(f"{self.name} has no split {split!r}", hint=f"it has: {', '.join(self.splits)}")
        return SplitPlace(
            self.store,
            folder=self.folder,
            name=self.name,
            version_id=self.version_id,
            split=split,
            cache=self._cache,
            expires=self._expires,
        )

    def totals(self, split: str) -> ManifestTotals:
        return self._root.splits[self.place(split).split].totals

    def split(self, name: str, *, key: SecretKey) -> SplitReader:
        """Raises ConfigError for an unknown split. A wrong key shows when the first shard is opened."""
        return SplitReader(
            self.place(name), schema=self.splits[name].schema, totals=self.totals(name), key=key
        )

    def verify(self, *, key: SecretKey | None = None, part: VerifyPart | None = None) -> VerifyReport:
        """Read and re-hash every byte against the root, or the shards of a part; with the key also
        authenticate every frame."""
        return verify_dataset(
            [(self.place(split), self.totals(split)) for split in self.splits],
            store=self.store,
            recorded={
                review_path(self.folder, "policy.toml"): self.policy_sha256,
                review_path(self.folder, "report.json"): self.report_sha256,
            },
            key=key,
            part=part or VerifyPart(),
        )

    def delete(self) -> None:
        """Remove the version. It stops to exist first (one rename, or its root.json), then its bytes go, and
        what this node's cache holds of it."""
        cache = self._cache if isinstance(self._cache, NodeCache) else None
        digests = [record.digest for record in self._records()] if cache is not None else []
        if self.store.renames_folders:
            trash = f"{self.name}/{STAGING}{self.version_id}"
            self.store.publish(self.folder, trash)
            self.store.delete_folder(trash)
        else:
            self.store.delete(f"{self.folder}/root.json")
            self.store.delete_folder(self.folder)
        for digest in digests:
            assert cache is not None, "digests are listed for a cache"
            cache.forget(digest)

    def _records(self) -> Iterator[ShardRecord]:
        for split in self.splits:
            yield from open_manifest(self.place(split), totals=self.totals(split)).records()


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
    found = [(name, list_versions(store, name)) for name in list_names(store)]
    return [(name, versions) for name, versions in found if versions]


def list_names(location: Location) -> list[str]:
    """Every data set that was begun, also those that have no version yet."""
    return [name for name in open_store(location).children("") if _is_name(name)]


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

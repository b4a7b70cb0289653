"""One split of a data set version: where it lies, and how it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, RandomAccess
from rsc.store.cache.node_cache import CachedShard, ShardCache
from rsc.store.cache.prefetch import CachedRead, Follower
from rsc.store.format.columns import Columns
from rsc.store.format.container import ContainerReader
from rsc.store.format.frames import decode_frame
from rsc.store.format.manifest import ManifestReader, ManifestTotals, ShardRecord
from rsc.store.format.root import manifest_path, shard_context, shard_path
from rsc.store.format.schema import Schema


@dataclass(frozen=True, slots=True)
class SplitPlace:
    """Where a split lies and what its shards are bound to."""

    store: BulkStore
    folder: str
    name: str
    version_id: str
    split: str
    cache: ShardCache | None = None
    expires: datetime | None = None

    def open_shard(self, record: ShardRecord) -> RandomAccess:
        """The bytes of a shard, through the cache where there is one.

        Raises IntegrityError when it is missing (`truncated`), KeyUnavailable when it has expired.
        """
        path = self.shard_path(record.shard)
        try:
            if self.cache is None:
                return self.store.open(path, size_bytes=record.size_bytes)
            return self.cache.open(
                self.store, path, digest=record.digest, size_bytes=record.size_bytes, expires=self.expires
            )
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing", outcome="truncated", shard=record.shard) from None

    def shard_path(self, shard: int) -> str:
        return shard_path(self.folder, split=self.split, shard=shard)

    def shard_context(self, shard: int) -> bytes:
        return shard_context(name=self.name, version_id=self.version_id, split=self.split, shard=shard)

    @property
    def manifest_path(self) -> str:
        return manifest_path(self.folder, split=self.split)


@dataclass(frozen=True, slots=True)
class SampleLocation:
    shard: int
    sample_in_shard: int


_TABLES_KEPT = 256  # of shards that are read in turn; more than any loader keeps open


class _CachedTable(NamedTuple):
    """A shard's bytes in the cache, and what is needed to find its frames there."""

    source: CachedShard
    frames: np.ndarray[Any, Any]
    tag_bytes: int


class SplitReader:
    """Reads one split. Holds nothing per shard; the key stays the caller's to close."""

    def __init__(self, place: SplitPlace, *, schema: Schema, totals: ManifestTotals, key: SecretKey) -> None:
        self.schema = schema
        self.place = place
        self.num_samples = totals.num_samples
        self.num_shards = totals.num_shards
        self.num_frames = totals.num_frames
        self.size_bytes = totals.size_bytes
        self.manifest = open_manifest(place, totals=totals)
        self._key = key

    def shard_record(self, shard: int) -> ShardRecord:
        return self.manifest.record(shard)

    def record_of_sample(self, sample: int) -> ShardRecord:
        """The shard that holds a sample number of the split. Raises IndexError outside [0, num_samples)."""
        return self.manifest.find_sample(sample)

    def locate(self, sample: int) -> SampleLocation:
        """Where a sample number of the split lies. Raises IndexError outside [0, num_samples)."""
        record = self.record_of_sample(sample)
        return SampleLocation(shard=record.shard, sample_in_shard=sample - record.first_sample)

    def open_shard(self, shard: int) -> ContainerReader:
        """Raises IntegrityError when the file is not the recorded one, or missing (`truncated`)."""
        record = self.manifest.record(shard)
        source = self.place.open_shard(record)
        try:
            return ContainerReader(
                source, key=self._key, context=self.place.shard_context(shard), expected_digest=record.digest
            )
        except IntegrityError as error:
            source.close()
            path = self.place.shard_path(shard)
            raise IntegrityError(
                f"{path}: {error.message}", hint=error.hint, **error.facts, shard=shard
            ) from None

    def follow(
        self, frames: Iterator[tuple[int, int]], *, ahead_bytes: int, connections: int = 16
    ) -> Follower | None:
        """Prefetch for a reader that will read `frames` (shard, frame) in this order; None without a cache.

        Call the follower's `advance` after each frame, and close it at the end.
        """
        if self.place.cache is None:
            return None
        reads = self._cached_reads(frames)
        return Follower(self.place.cache, reads=reads, ahead_bytes=ahead_bytes, connections=connections)

    def _cached_reads(self, frames: Iterator[tuple[int, int]]) -> Iterator[CachedRead]:
        """Where coming frames lie; keeps the tables of the last shards named."""
        tables: OrderedDict[int, _CachedTable] = OrderedDict()
        for shard, frame in frames:
            if shard not in tables:
                tables[shard] = self._cached_table(shard)
                if len(tables) > _TABLES_KEPT:
                    tables.popitem(last=False)
            tables.move_to_end(shard)
            table = tables[shard]
            size = int(table.frames["plain_bytes"][frame]) + table.tag_bytes
            yield CachedRead(table.source, offset=int(table.frames["offset"][frame]), size_bytes=size)

    def _cached_table(self, shard: int) -> _CachedTable:
        """A shard's bytes and frames; they stay usable when nobody keeps the shard open."""
        reader = self.open_shard(shard)
        source = reader.source
        assert isinstance(source, CachedShard), "only called where there is a cache"
        return _CachedTable(source, reader.frames, reader.suite.tag_bytes)

    def iterate(self, *, shards: Sequence[int] | None = None) -> Iterator[Columns]:
        """Columns of each frame in written order, each in a new buffer, none before its tag verified; of all
        shards or of the given ones."""
        for shard in range(self.num_shards) if shards is None else shards:
            reader = self.open_shard(shard)
            try:
                for frame in range(reader.num_frames):
                    num_samples = int(reader.frames["num_samples"][frame])
                    yield decode_frame(self.schema, reader.read_frame(frame), num_samples)
            finally:
                reader.close()

    def close(self) -> None:
        self.manifest.close()


def open_manifest(place: SplitPlace, *, totals: ManifestTotals) -> ManifestReader:
    """Raises IntegrityError when the manifest is missing (`truncated`) or not the recorded one."""
    try:
        source = place.store.open(place.manifest_path)
    except FileNotFoundError:
        raise IntegrityError(f"{place.manifest_path} is missing", outcome="truncated") from None
    return ManifestReader(source, totals=totals)

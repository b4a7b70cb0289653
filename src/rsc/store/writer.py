"""Write a data set version that appears whole or not at all.

In a folder a version is built in `.staging-<id>` and appears by one rename. In an object store a writer
claims the next version number, puts its objects there, and `root.json` last and only if absent: a version
without `root.json` does not exist for any reader.

A long import calls `checkpoint` now and then; after a kill `resume` goes on from the last one, with the
position that the caller stored there, and drops every shard written later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rsc.clock import Clock, timestamp
from rsc.errors import ConfigError, ResourceError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.bulk.locations import Location, open_store
from rsc.store.format.columns import Columns
from rsc.store.format.root import (
    Root,
    SplitRecord,
    check_name,
    review_path,
    root_hash,
    version_folder,
    version_number,
)
from rsc.store.format.schema import Schema
from rsc.store.format.suites import AES_256_GCM, Suite
from rsc.store.split_writer import SplitWriter
from rsc.store.splits import SplitPlace
from rsc.store.staging import StagedProgress, Unfinished, claim, last_claimed

# 64 KiB to 1 MiB decrypt at 14 GB per CPU second in the cache. From storage to batch 256 KiB were best:
# 252 ms a GB, against 280 with 512 KiB (which crowd a cache of 2 MiB) and 295 with 128 KiB.
FRAME_BYTES = 256 << 10
SHARD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class DatasetRef:
    name: str
    version: int
    version_id: str
    root_hash: str


class DatasetWriter:
    """Append columns to splits, then `commit`. As a context manager it aborts what was not committed."""

    def __init__(
        self, place: Unfinished, *, writers: dict[str, SplitWriter], envelope: Envelope, clock: Clock
    ) -> None:
        self._place = place
        self._store = place.store
        self._writers = writers
        self.envelope = envelope
        self._clock = clock
        self._is_open = True
        self._has_checkpoint = False

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
        suite: Suite = AES_256_GCM,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> DatasetWriter:
        """Start a version. `key` is the one in `envelope` and stays the caller's to close."""
        place = claim(open_store(location), name=check_name(name), version_id=random_bytes(16).hex())
        cut = _Cut(key, suite, frame_bytes=frame_bytes, shard_bytes=shard_bytes, random_bytes=random_bytes)
        writer = cls(place, writers={}, envelope=envelope, clock=clock)
        with writer._giving_up():
            writer._store.put(f"{place.folder}/key.json", envelope.to_json().encode())
            for split, schema in schemas.items():
                writer._writers[check_name(split)] = cut.writer(place, split=split, schema=schema)
        return writer

    @classmethod
    def resume(
        cls,
        unfinished: Unfinished,
        *,
        key: SecretKey,
        clock: Clock,
        frame_bytes: int = FRAME_BYTES,
        shard_bytes: int = SHARD_BYTES,
        suite: Suite = AES_256_GCM,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> DatasetWriter:
        """Go on from the last checkpoint; `unfinished.progress().position` says where that was.

        Reads the tail of each finished shard and removes the ones after it. Raises ConfigError where there
        is no checkpoint, IntegrityError where a shard is not what was written or `key` is another one.
        """
        progress = unfinished.progress()
        if progress is None:
            raise ConfigError(f"{unfinished.folder} has no checkpoint", hint="remove it and start again")
        cut = _Cut(key, suite, frame_bytes=frame_bytes, shard_bytes=shard_bytes, random_bytes=random_bytes)
        writer = cls(unfinished, writers={}, envelope=unfinished.envelope(), clock=clock)
        writer._has_checkpoint = True
        with writer._giving_up():
            unfinished.remove_after(progress)
            for split, schema in progress.schemas.items():
                writer._writers[split] = cut.writer(unfinished, split=split, schema=schema)
                writer._writers[split].adopt(progress.num_shards[split])
        return writer

    def append(self, split: str, columns: Columns) -> None:
        """Add samples to a split. Raises DataError where they do not fit its schema (nothing is added), and
        ResourceError when the storage fails (then only the last checkpoint is kept)."""
        try:
            self._writers[split].append(columns)
        except ResourceError:
            self._give_up()
            raise

    def checkpoint(self, position: dict[str, Any]) -> None:
        """Make everything appended so far survive a kill, together with `position` (JSON, no personal data).

        Ends the current shard of every split: call it every few hundred MB, not every batch.
        """
        with self._giving_up():
            num_shards = {split: writer.flush() for split, writer in self._writers.items()}
            schemas = {split: writer.schema for split, writer in self._writers.items()}
            progress = StagedProgress(schemas=schemas, num_shards=num_shards, position=position)
            self._store.put(self._place.progress_path, progress.to_bytes())
        self._has_checkpoint = True

    def suspend(self) -> None:
        """Stop and keep the last checkpoint for `resume`. What was appended after it is dropped."""
        if self._is_open:
            self._is_open = False
            for writer in self._writers.values():
                writer.discard()

    def commit(self, *, policy: bytes, report: bytes, facts: dict[str, Any]) -> DatasetRef:
        """Finish all splits and publish the version. After an error nothing of it is visible."""
        with self._giving_up():
            splits = {
                split: SplitRecord.of(writer.schema, writer.finish())
                for split, writer in self._writers.items()
            }
            root = Root(
                name=self._place.name,
                version_id=self._place.version_id,
                created=timestamp(self._clock.now()),
                splits=splits,
                policy_sha256=hashlib.sha256(policy).hexdigest(),
                report_sha256=hashlib.sha256(report).hexdigest(),
                facts=facts,
            ).to_bytes()
            self._store.put(review_path(self._place.folder, "policy.toml"), policy)
            self._store.put(review_path(self._place.folder, "report.json"), report)
            version = self._publish(root)
        self._is_open = False
        return DatasetRef(
            name=self._place.name,
            version=version,
            version_id=self._place.version_id,
            root_hash=root_hash(root),
        )

    def abort(self) -> None:
        """Remove everything written. Safe after a failure and after `commit` (then it does nothing)."""
        if self._is_open:
            self.suspend()
            self._place.remove()

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
        """Clean up while another error is on its way: all of it, or what came after the last checkpoint."""
        with suppress(ResourceError):
            self.suspend() if self._has_checkpoint else self.abort()

    def _publish(self, root: bytes) -> int:
        """Make the version visible; returns its number."""
        folder, name = self._place.folder, self._place.name
        if not self._store.renames_folders:
            if not self._store.put_if_absent(f"{folder}/root.json", root):
                raise ResourceError(f"{folder}/root.json appeared while this version was written")
            with suppress(ResourceError):  # it is published: nobody looks at what is left of the checkpoint
                self._forget_checkpoint()
            version = version_number(folder.rpartition("/")[2])
            assert version is not None, "object stores write straight into a claimed version"
            return version
        self._store.put(f"{folder}/root.json", root)
        self._forget_checkpoint()  # after the last bytes: a full disk must not cost hours of work
        version = last_claimed(self._store, name) + 1
        while not self._store.publish(folder, version_folder(name, version)):
            version += 1
        return version

    def _forget_checkpoint(self) -> None:
        if self._has_checkpoint:
            self._store.delete(self._place.progress_path)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How all splits of a version are cut and encrypted."""

    key: SecretKey
    suite: Suite
    frame_bytes: int
    shard_bytes: int
    random_bytes: Callable[[int], bytes]

    def writer(self, place: Unfinished, *, split: str, schema: Schema) -> SplitWriter:
        return SplitWriter(
            SplitPlace(
                place.store, folder=place.folder, name=place.name, version_id=place.version_id, split=split
            ),
            schema=schema,
            key=self.key,
            frame_bytes=self.frame_bytes,
            shard_bytes=self.shard_bytes,
            suite=self.suite,
            random_bytes=self.random_bytes,
        )

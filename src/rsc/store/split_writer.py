"""Columns of one split into frames, shards and a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkFile
from rsc.store.format.columns import Columns, Ragged, concatenate_columns, sample_bytes, slice_columns
from rsc.store.format.container import ContainerReader, ContainerRecord, ContainerWriter
from rsc.store.format.frames import encode_frame_into, frame_in_place, frame_size
from rsc.store.format.manifest import ManifestTotals, ManifestWriter
from rsc.store.format.schema import Schema
from rsc.store.format.suites import AES_256_GCM, Suite
from rsc.store.splits import SplitPlace


class SplitWriter:
    """Cuts columns into frames of about `frame_bytes` and frames into shards of at most `shard_bytes`.

    Holds less than one frame of samples. A sample larger than `frame_bytes` gets a frame of its own, a
    frame larger than `shard_bytes` a shard of its own.
    """

    def __init__(
        self,
        place: SplitPlace,
        *,
        schema: Schema,
        key: SecretKey,
        frame_bytes: int,
        shard_bytes: int,
        suite: Suite = AES_256_GCM,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.schema = schema
        self._place = place
        self._key = key
        self._frame_bytes = frame_bytes
        self._shard_bytes = shard_bytes
        self._suite = suite
        self._random_bytes = random_bytes
        self._pending: list[Columns] = []
        self._pending_bytes = 0
        self._buffer = bytearray(frame_bytes)
        self._manifest_file = place.store.create(place.manifest_path)
        self._manifest = ManifestWriter(self._manifest_file)
        self._num_shards = 0
        self._shard_file: BulkFile | None = None
        self._shard: ContainerWriter | None = None

    def append(self, columns: Columns) -> None:
        """Add samples; columns may be reused by the caller afterwards. Raises DataError, ResourceError."""
        ends = np.cumsum(sample_bytes(self.schema, columns))
        start, written = 0, 0
        while start < len(ends):
            room = self._frame_bytes - self._pending_bytes
            stop = int(np.searchsorted(ends, written + room, side="right"))
            if stop == len(ends) and int(ends[-1]) - written < room:
                self._keep(slice_columns(columns, start, stop), size=int(ends[-1]) - written)
                return
            if stop == start and not self._pending:
                stop = start + 1
            self._write_frame(slice_columns(columns, start, stop))
            start, written = stop, int(ends[stop - 1]) if stop else 0

    def flush(self) -> int:
        """End the current frame and shard, durably; returns the number of shards."""
        if self._pending:
            self._write_frame(None)
        self._end_shard()
        return self._num_shards

    def adopt(self, num_shards: int) -> None:
        """Take the first shards, written before an interruption, as they are.

        Raises IntegrityError where one is not whole or was not written with this key for this place.
        """
        for shard in range(num_shards):
            self._manifest.add(self._record_of(shard))
        self._num_shards = num_shards

    def finish(self) -> ManifestTotals:
        """Write what is left and the manifest; everything is durable on return."""
        self.flush()
        totals = self._manifest.finish()
        self._manifest_file.commit()
        return totals

    def discard(self) -> None:
        """Give up the files that are still open."""
        if self._shard is not None:
            self._shard.discard()
        for file in (self._shard_file, self._manifest_file):
            if file is not None:
                file.discard()

    def _keep(self, columns: Columns, *, size: int) -> None:
        self._pending.append({name: _copy(column) for name, column in columns.items()})
        self._pending_bytes += size

    def _write_frame(self, more: Columns | None) -> None:
        """Encode what is pending and `more` as one frame."""
        parts = self._pending if more is None else [*self._pending, more]
        columns = parts[0] if len(parts) == 1 else concatenate_columns(parts)
        self._pending, self._pending_bytes = [], 0
        frame = frame_in_place(self.schema, columns)
        if frame is None:
            frame = self._encode(columns)
        num_samples = len(next(iter(columns.values())))
        self._shard_with_room(len(frame)).write_frame(frame, num_samples=num_samples)

    def _encode(self, columns: Columns) -> memoryview:
        size = frame_size(self.schema, columns)
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        encode_frame_into(self.schema, columns, self._buffer)
        return memoryview(self._buffer)[:size]

    def _shard_with_room(self, size: int) -> ContainerWriter:
        if self._shard is not None and self._shard.body_bytes + size > self._shard_bytes:
            self._end_shard()
        if self._shard is None:
            self._shard_file = self._place.store.create(self._place.shard_path(self._num_shards))
            self._shard = ContainerWriter(
                self._shard_file,
                key=self._key,
                context=self._place.shard_context(self._num_shards),
                suite=self._suite,
                random_bytes=self._random_bytes,
            )
        return self._shard

    def _record_of(self, shard: int) -> ContainerRecord:
        path = self._place.shard_path(shard)
        try:
            source = self._place.store.open(path)
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing", outcome="truncated", shard=shard) from None
        reader = ContainerReader(source, key=self._key, context=self._place.shard_context(shard))
        reader.close()
        return ContainerRecord(
            digest=reader.tail.digest,
            size_bytes=reader.tail.size_bytes,
            num_frames=reader.num_frames,
            num_samples=reader.num_samples,
        )

    def _end_shard(self) -> None:
        if self._shard is None or self._shard_file is None:
            return
        record = self._shard.finish()
        self._shard_file.commit()
        self._manifest.add(record)
        self._shard, self._shard_file = None, None
        self._num_shards += 1


def _copy(column: np.ndarray[Any, Any] | Ragged) -> np.ndarray[Any, Any] | Ragged:
    if isinstance(column, Ragged):
        return Ragged(values=column.values.copy(), offsets=column.offsets)
    return column.copy()

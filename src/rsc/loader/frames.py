"""From samples of the written order to the frames that hold them, and the bytes of those frames.

A section (see order.py) is a run of consecutive samples, so it covers whole frames and, at its two ends,
parts of frames. `SectionReader` looks them up in the manifest and in the frame tables of the shards it
touches, and puts them into the order in which a lane reads them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsc.errors import IntegrityError
from rsc.loader.order import Int64s, Order, Run
from rsc.store.container import ContainerReader
from rsc.store.local import LocalStore
from rsc.store.schema import Schema, fixed_column_starts
from rsc.store.splits import SplitReader


class Piece(NamedTuple):
    """Rows [skip, skip + num_rows) of one frame, read by a lane as its samples from `start` on.

    The lane's section uses the frame up to row `stop`: what is left is read in the next window.
    """

    shard: int
    frame: int
    skip: int
    num_rows: int
    stop: int
    start: int


class Section:
    """What a lane reads in a round, in reading order."""

    def __init__(self, *, shards: Int64s, frames: Int64s, skips: Int64s, counts: Int64s) -> None:
        self._shards: list[int] = shards.tolist()
        self._frames: list[int] = frames.tolist()
        self._skips: list[int] = skips.tolist()
        self._starts: list[int] = [0, *np.cumsum(counts).tolist()]

    def pieces(self, *, start: int, stop: int) -> Iterator[Piece]:
        """The samples [start, stop) of the lane, cut at frame boundaries."""
        starts = self._starts
        for k in range(bisect_right(starts, start) - 1, bisect_left(starts, stop)):
            low, high = max(start, starts[k]), min(stop, starts[k + 1])
            first_row = self._skips[k] - starts[k]
            yield Piece(
                self._shards[k], self._frames[k], first_row + low, high - low, first_row + starts[k + 1], low
            )


class Shard:
    """An open shard, with its frame table as plain lists: they are asked for every frame."""

    def __init__(self, reader: ContainerReader, *, path: str, data: str, first_sample: int) -> None:
        self._reader = reader
        self._path = path
        self._data = data
        self._starts: dict[tuple[int, int], Mapping[str, int]] = {}
        self.table = reader.frames
        self.first_samples: list[int] = (reader.frames["first_sample"] + first_sample).tolist()
        self.plain_bytes: list[int] = reader.frames["plain_bytes"].tolist()
        self.num_samples: list[int] = reader.frames["num_samples"].tolist()

    def column_starts(self, schema: Schema, *, frame: int) -> Mapping[str, int]:
        """Where each column begins in a frame of fixed fields. Raises IntegrityError as decoding does."""
        num_samples, size = self.num_samples[frame], self.plain_bytes[frame]
        if (num_samples, size) not in self._starts:
            self._starts[num_samples, size] = fixed_column_starts(schema, num_samples, size_bytes=size)
        return self._starts[num_samples, size]

    def read_into(self, frame: int, plain: memoryview, *, scratch: bytearray) -> None:
        """Decrypt a frame to the start of `plain`. `scratch` has room for it and its tag.

        Raises IntegrityError when it does not authenticate or is not there. Safe from several threads.
        """
        try:
            self._reader.read_frame_into(frame, plain, scratch=scratch)
        except IntegrityError as error:
            hint = f"see what else is damaged with `rsc data verify {self._data}`; do not train on this shard"
            raise IntegrityError(f"{self._path}: {error.message}", hint=hint, **error.facts) from None

    def close(self) -> None:
        self._reader.close()


class OpenShards:
    """Shards in use, open. `get` and `keep_newest` belong to one thread; the shards may be used by any.

    Local files are read in place, through a map: see LocalStore for what that saves and what it costs.
    """

    def __init__(self, split: SplitReader) -> None:
        self._split = _in_place(split)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def get(self, shard: int) -> Shard:
        if shard not in self._open:
            place = self._split.place
            self._open[shard] = Shard(
                self._split.open_shard(shard),
                path=place.shard_path(shard),
                data=place.name,
                first_sample=self._split.shard_record(shard).first_sample,
            )
        self._open.move_to_end(shard)
        return self._open[shard]

    def keep_newest(self, count: int) -> None:
        """Close all but the last `count` shards asked for. Nobody may be reading from the others."""
        while len(self._open) > count:
            self._open.popitem(last=False)[1].close()


class SectionReader:
    """Looks up the sections of an order, and keeps the last ones."""

    def __init__(self, split: SplitReader, *, order: Order, shards: OpenShards) -> None:
        self._split = split
        self._order = order
        self._shards = shards
        self._kept: OrderedDict[tuple[int, int, int], Section] = OrderedDict()
        self._rest: tuple[int, list[list[Run]]] | None = None

    def section(self, epoch: int, *, round_: int, lane: int) -> Section:
        key = (epoch, round_, lane)
        if key not in self._kept:
            self._kept[key] = self._look_up(epoch, round_=round_, lane=lane)
            while len(self._kept) > 2 * self._order.lanes:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _look_up(self, epoch: int, *, round_: int, lane: int) -> Section:
        if round_ == self._order.num_rounds:
            runs = self._slices_of_rest(epoch)[lane]
        else:
            runs = self._order.section(epoch, round_=round_, lane=lane)
        parts = [part for run in runs for part in self._frames_of(run)]
        shards, frames, skips, counts, is_edge = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        order = self._order.frame_order(len(frames), epoch=epoch, round_=round_, lane=lane)
        # Frames that are cut, and short last frames of a shard, come last: then windows begin where frames
        # begin, as long as frames hold the same number of samples.
        order = order[np.argsort(is_edge[order], kind="stable")]
        return Section(shards=shards[order], frames=frames[order], skips=skips[order], counts=counts[order])

    def _slices_of_rest(self, epoch: int) -> list[list[Run]]:
        """The last round's sections, which the order computes for all lanes together."""
        if self._rest is None or self._rest[0] != epoch:
            self._rest = epoch, self._order.slices_of_rest(epoch)
        return self._rest[1]

    def _frames_of(self, run: Run) -> Iterator[tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.bool_]]]:
        """(shard, frame, skip, count, is_edge) of the frames that overlap a run, shard by shard."""
        sample = run.start
        while sample < run.stop:
            record = self._split.manifest.find_sample(sample)
            table = self._shards.get(record.shard).table
            starts = table["first_sample"] + record.first_sample
            stops = starts + table["num_samples"]
            first = int(np.searchsorted(stops, sample, side="right"))
            last = int(np.searchsorted(starts, run.stop, side="left"))
            frames = np.arange(first, last, dtype=np.int64)
            skips = np.maximum(sample - starts[first:last], 0)
            counts = np.minimum(stops[first:last], run.stop) - starts[first:last] - skips
            sizes = table["num_samples"][first:last]
            is_short_end = (frames == len(table) - 1) & (sizes < table["num_samples"][0])
            is_edge = (counts < sizes) | is_short_end
            used = counts > 0  # a frame may hold no samples
            shards = np.full(len(frames), record.shard, np.int64)
            yield shards[used], frames[used], skips[used], counts[used], is_edge[used]
            sample = record.first_sample + record.num_samples


def _in_place(split: SplitReader) -> SplitReader:
    """The same split, with local shards read through a map."""
    store = split.place.store
    if not isinstance(store, LocalStore):
        return split
    mapped = copy(split)
    mapped.place = replace(split.place, store=LocalStore(store.root, mapped=True))
    return mapped

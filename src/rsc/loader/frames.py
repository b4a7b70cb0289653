"""From samples of the written order to the frames that hold them.

A section (see order.py) is a run of consecutive samples, so it covers whole frames and, at its two ends,
parts of frames. `SectionReader` looks them up in the manifest and in the frame tables of the shards it
touches, and puts them into the order in which a lane reads them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsc.loader.order import Order, Run
from rsc.store.container import ContainerReader
from rsc.store.splits import SplitReader

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples [skip, skip + count) of one frame, which are the lane's [start, start + count) as read."""

    shard: int
    frame: int
    skip: int
    count: int
    start: int


@dataclass(frozen=True)
class Section:
    """What a lane reads in a round, in reading order: piece k has its samples [starts[k], starts[k + 1])."""

    shards: Int64s
    frames: Int64s
    skips: Int64s
    starts: Int64s

    def pieces(self, *, start: int, stop: int) -> Iterator[Piece]:
        """The samples [start, stop) of the lane, cut at frame boundaries."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        for k in range(first, last):
            low, high = max(start, int(self.starts[k])), min(stop, int(self.starts[k + 1]))
            skip = int(self.skips[k]) + low - int(self.starts[k])
            yield Piece(int(self.shards[k]), int(self.frames[k]), skip, high - low, low)


class OpenShards:
    """Shards in use, open. `get` and `keep_newest` belong to one thread; the readers may be used by any."""

    def __init__(self, split: SplitReader) -> None:
        self._split = split
        self._open: OrderedDict[int, ContainerReader] = OrderedDict()

    def get(self, shard: int) -> ContainerReader:
        if shard not in self._open:
            self._open[shard] = self._split.open_shard(shard)
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

    def section(self, epoch: int, *, round_: int, lane: int) -> Section:
        key = (epoch, round_, lane)
        if key not in self._kept:
            self._kept[key] = self._look_up(epoch, round_=round_, lane=lane)
            while len(self._kept) > 2 * self._order.lanes:
                self._kept.popitem(last=False)
        return self._kept[key]

    def _look_up(self, epoch: int, *, round_: int, lane: int) -> Section:
        runs = self._order.section(epoch, round_=round_, lane=lane)
        parts = [part for run in runs for part in self._frames_of(run)]
        shards, frames, skips, counts, is_edge = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        order = self._order.frame_order(len(frames), epoch=epoch, round_=round_, lane=lane).astype(np.int64)
        # Frames that are cut, and short last frames of a shard, come last: then windows begin where frames
        # begin, as long as frames hold the same number of samples.
        order = order[np.argsort(is_edge[order], kind="stable")]
        starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(counts[order], out=starts[1:])
        return Section(shards=shards[order], frames=frames[order], skips=skips[order], starts=starts)

    def _frames_of(self, run: Run) -> Iterator[tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.bool_]]]:
        """(shard, frame, skip, count, is_edge) of the frames that overlap a run, shard by shard."""
        sample = run.start
        while sample < run.stop:
            record = self._split.manifest.find_sample(sample)
            table = self._shards.get(record.shard).frames
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

"""From samples of the written order to the frames that hold them, and the bytes of those frames.

A section (see order.py) is a run of consecutive samples, so it covers whole frames and, at its two ends,
parts of frames. `SectionReader` looks them up in the manifest and in the frame tables of the shards it
touches, and puts them into the order in which a lane reads them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rsc.errors import IntegrityError
from rsc.loader.layout import runs_of
from rsc.loader.order import Int64s, Order, PlannedWindow, SampleRun
from rsc.store.bulk.local import LocalStore
from rsc.store.format.container import ContainerReader
from rsc.store.format.manifest import ShardRecord
from rsc.store.splits import SplitReader

Frames: TypeAlias = NDArray[np.void]
"""Rows [skip, skip + num_rows) of frames, [n]. `start` is the sample of the lane's section that the first of
them is, `first_sample` the number in the split of the frame's row 0."""

_FRAME = np.dtype(
    [
        *((name, np.int64) for name in ("lane", "start", "shard", "frame", "skip", "num_rows")),
        *((name, np.int64) for name in ("plain_bytes", "num_samples", "first_sample")),
        *((name, np.bool_) for name in ("is_edge", "is_continued", "goes_on")),
    ]
)


class Round:
    """What some lanes read in a round: the frames of their sections, in reading order."""

    def __init__(self, sections: Sequence[Frames], *, lanes: Int64s) -> None:
        """`sections` of the lanes, one each."""
        numbers = np.repeat(np.arange(len(lanes)), [len(section) for section in sections])
        self._frames = _joined(sections)
        self._frames["lane"] = lanes[numbers]
        # One key a frame, rising through the lanes: one search finds a window's frames in all of them.
        self._span = int((self._frames["start"] + self._frames["num_rows"]).max(initial=0)) + 1
        self._keys = numbers * self._span + self._frames["start"]

    def pieces(self, *, first: int, sizes: Int64s) -> Frames:
        """The samples [first, first + size) of each lane, lane by lane, cut at frame boundaries.

        A piece `is_continued` when the window before has the frame's first rows of the section, and
        `goes_on` when the next one has more.
        """
        wanted = np.arange(len(sizes)) * self._span + first
        low = np.maximum(np.searchsorted(self._keys, wanted, side="right") - 1, 0)
        counts = np.maximum(np.searchsorted(self._keys, wanted + sizes) - low, 0)
        pieces: Frames = self._frames[runs_of(low, counts=counts)]
        starts, ends = pieces["start"], pieces["start"] + pieces["num_rows"]
        begins, stops = np.maximum(starts, first), np.minimum(ends, first + np.repeat(sizes, counts))
        pieces["is_continued"], pieces["goes_on"] = begins > starts, stops < ends
        pieces["skip"] += begins - starts
        pieces["num_rows"] = stops - begins
        filled: Frames = pieces[stops > begins]
        return filled


class Shard:
    """An open shard and its frames: their table, and samples [starts, stops) of the shard that each holds."""

    def __init__(self, reader: ContainerReader, *, path: str, data: str) -> None:
        self._reader = reader
        self._path = path
        self._data = data
        self.table = reader.frames
        self.frames = _frames_of_shard(self.table)
        self.starts = np.ascontiguousarray(self.table["first_sample"])
        self.stops = self.starts + self.table["num_samples"]

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
                self._split.open_shard(shard), path=place.shard_path(shard), data=place.name
            )
        self._open.move_to_end(shard)
        return self._open[shard]

    def keep_newest(self, count: int) -> None:
        """Close all but the last `count` shards asked for. Nobody may be reading from the others."""
        while len(self._open) > count:
            self._open.popitem(last=False)[1].close()


class SectionReader:
    """Looks up the sections of an order, and keeps those of the last round asked for."""

    def __init__(self, split: SplitReader, *, order: Order, shards: OpenShards) -> None:
        self._split = split
        self._order = order
        self._shards = shards
        self._kept: tuple[tuple[int, int, bytes], Round] | None = None
        self._last_record: ShardRecord | None = None

    def pieces(self, span: PlannedWindow, *, lanes: Int64s) -> Frames:
        """What the lanes read for a window, lane by lane."""
        key = (span.epoch, span.round, lanes.tobytes())
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._look_up(span.epoch, round_=span.round, lanes=lanes)
        return self._kept[1].pieces(first=span.first, sizes=span.lane_sizes[lanes])

    def _look_up(self, epoch: int, *, round_: int, lanes: Int64s) -> Round:
        runs = self._order.sections(epoch, round_=round_, lanes=lanes)
        sections = [
            self._section(part, epoch=epoch, round_=round_, lane=lane)
            for part, lane in zip(runs, lanes.tolist(), strict=True)
        ]
        return Round(sections, lanes=lanes)

    def _section(self, runs: list[SampleRun], *, epoch: int, round_: int, lane: int) -> Frames:
        """The frames of a lane's section, in the order in which it reads them."""
        parts = [part for run in runs for part in self._frames_of(run)]
        frames = parts[0] if len(parts) == 1 else _joined(parts)
        order = self._order.frame_order(len(frames), epoch=epoch, round_=round_, lane=lane)
        # Frames that are cut, and short last frames of a shard, come last: then windows begin where frames
        # begin, as long as frames hold the same number of samples.
        frames = frames[order[np.argsort(frames["is_edge"][order], kind="stable")]]
        frames["start"] = np.cumsum(frames["num_rows"]) - frames["num_rows"]
        return frames

    def _frames_of(self, run: SampleRun) -> Iterator[Frames]:
        """The frames that overlap a run, shard by shard."""
        sample = run.start
        while sample < run.stop:
            record = self._record_of(sample)
            shard = self._shards.get(record.shard)
            start, stop = sample - record.first_sample, run.stop - record.first_sample
            first = int(np.searchsorted(shard.stops, start, side="right"))
            last = int(np.searchsorted(shard.starts, stop, side="left"))
            frames = shard.frames[first:last].copy()
            frames["shard"] = record.shard
            frames["first_sample"] += record.first_sample
            skip, over = start - int(shard.starts[first]), int(shard.stops[last - 1]) - stop
            frames["skip"][0] = max(skip, 0)
            frames["num_rows"][0] -= max(skip, 0)
            frames["num_rows"][-1] -= max(over, 0)
            frames["is_edge"][0] |= skip > 0
            frames["is_edge"][-1] |= over > 0
            yield frames[frames["num_rows"] > 0]  # a frame may hold no samples
            sample = record.first_sample + record.num_samples

    def _record_of(self, sample: int) -> ShardRecord:
        """Of the shard that holds a sample; lanes often ask for one shard one after the other."""
        last = self._last_record
        if last is None or not last.first_sample <= sample < last.first_sample + last.num_samples:
            last = self._last_record = self._split.record_of_sample(sample)
        return last


def _joined(parts: Sequence[Frames]) -> Frames:
    """One after the other. With the type named numpy need not find out, in Python, which all parts share."""
    return np.concatenate([np.empty(0, _FRAME), *parts], dtype=_FRAME)


def _frames_of_shard(table: NDArray[Any]) -> Frames:
    """All frames of a shard, whole, and numbered from its first sample."""
    frames = np.zeros(len(table), _FRAME)
    frames["frame"] = np.arange(len(table))
    for name in ("first_sample", "plain_bytes", "num_samples"):
        frames[name] = table[name]
    frames["num_rows"] = table["num_samples"]
    if len(table):
        frames["is_edge"][-1] = table["num_samples"][-1] < table["num_samples"][0]
    return frames


def _in_place(split: SplitReader) -> SplitReader:
    """The same split, with local shards read through a map."""
    store = split.place.store
    if not isinstance(store, LocalStore):
        return split
    mapped = copy(split)
    mapped.place = replace(split.place, store=LocalStore(store.root, mapped=True))
    return mapped

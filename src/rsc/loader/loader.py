"""Batches of a split, shuffled, decrypted just before they are used; resumed exactly at any world size.

    with Loader(split, batch_size=256, rank=rank, world_size=world_size, seed=0) as loader:
        for batch in loader:             # {"image": uint8 [256, 32, 32, 3], "label": int64 [256]}
            ...
            state = loader.state_dict()  # what comes after this batch

Step k delivers the global positions [k * batch_size * world_size, ...) of the order (order.py); this rank
takes those that are `rank` modulo `world_size`. Batches own their memory; that of large ones is used again
when their last tensor is gone (memory.py).
"""

from __future__ import annotations

from collections import deque
from concurrent import futures
from typing import Any, NamedTuple, Self, TypeAlias

import torch
from numpy.typing import NDArray

from rsc.errors import ConfigError
from rsc.loader.memory import BatchMemory
from rsc.loader.order import DEFAULT_WINDOW_BYTES, Order, choose_order, mean_sizes
from rsc.loader.prefetch import ReadAhead, frames_of
from rsc.loader.ragged import RaggedTensor, join, join_arrays
from rsc.loader.stream import RankWindow, WindowStream, filling_threads
from rsc.loader.window import FixedColumn, RaggedColumn, Window
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader

Batch: TypeAlias = "dict[str, torch.Tensor | RaggedTensor]"

SAMPLE_NUMBER = "sample_number"


class Column(NamedTuple):
    """What a batch holds under a name: samples of one shape, or of any length (None)."""

    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype} {'of any length' if self.shape is None else list(self.shape)}"


_STATE_FORMAT = 1
_HINTS = {
    "format": "the state was written by another version of rsc: go on with that one, or begin a new run",
    "data": "resume with the data set version of the run's start",
    "order": "resume with the seed, window_bytes and lanes of the run's start; data of variable length with "
    "the version of rsc too, if windows were not sized by means then",
    "packing": "resume with the field, sequence_length and separator of the run's start",
}


class Loader:
    """An iterator of batches with named state. Endless, or `epochs` long with a shorter last batch.

    `batch_size` is per rank. A `numbered` loader adds "sample_number", int64 [B]: where each sample is in the
    written order of the split. Where the split is read through a node's cache, `connections` requests are in
    flight. With `epochs` every rank takes the same number of steps; the last batch holds what is left, so
    ranks may differ by one sample there. `drop_last` leaves those samples out (`num_dropped`); batches that
    cross from one epoch into the next are whole, so no others are. Raises ConfigError for an unknown field,
    a rank outside the world, or state of another data set or order.
    """

    def __init__(
        self,
        split: SplitReader,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epochs: int | None = None,
        drop_last: bool = False,
        fields: tuple[str, ...] | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        lanes: int | None = None,
        threads: int = 0,
        numbered: bool = False,
        connections: int = 16,
    ) -> None:
        if not 0 <= rank < world_size or batch_size < 1:
            raise ConfigError(
                f"rank {rank} of {world_size} with batch size {batch_size}: not a place in a job"
            )
        if drop_last and epochs is None:
            raise ConfigError(
                "drop_last on a loader without an end: all its batches are whole", hint="give epochs=1"
            )
        self.order = plan_order(split, seed=seed, window_bytes=window_bytes, lanes=lanes)
        self._fields = _choose(split.schema, fields)
        self._batch_size = batch_size
        self._world_size = world_size
        self._end = None if epochs is None else epochs * split.num_samples
        self.num_dropped = (self._end or 0) % (batch_size * world_size) if drop_last else 0
        if self._end is not None:
            self._end -= self.num_dropped
        if self._end == 0:
            raise ConfigError(
                f"{split.num_samples} samples in {epochs} epochs are less than one batch of "
                f"{batch_size * world_size} (all ranks): drop_last would leave all of them out",
                hint="take smaller batches, or more epochs",
            )
        self._data = split.manifest.totals.merkle_root.hex()
        self.is_numbered = numbered
        self._pool = filling_threads(threads)
        self._ahead = ReadAhead(split, lanes=self.order.lanes, connections=connections)
        self._stream = WindowStream(
            split,
            order=self.order,
            fields=self._fields,
            rank=rank,
            world_size=world_size,
            after_read=self._ahead.advance,
            is_numbered=numbered,
            pool=self._pool,
            threads=threads,
        )
        self._memory = BatchMemory()
        self._position = 0
        self._is_closed = False
        self._opened_to: int | None = None  # windows up to there; nothing before the first one
        self._windows: deque[RankWindow] = deque()

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in a batch."""
        return tuple(field.name for field in self._fields)

    @property
    def columns(self) -> dict[str, Column]:
        """What a batch holds, by name."""
        columns = {
            field.name: Column(field.dtype, None if field.is_ragged else field.shape)
            for field in self._fields
        }
        return columns | ({SAMPLE_NUMBER: Column("int64", ())} if self.is_numbered else {})

    @property
    def position(self) -> int:
        """Samples delivered to all ranks since the start of the run; the next step begins here."""
        return self._position

    @property
    def place(self) -> int:
        """Where this rank is: for every rank the same `position`."""
        return self._position

    @property
    def samples_an_epoch(self) -> int | None:
        """Samples over all ranks until every one of the split was delivered once."""
        return self.order.num_samples

    @property
    def epoch(self) -> float:
        return self._position / self.order.num_samples

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self.take(self._batch_size)

    def take(self, batch_size: int) -> Batch:
        """The next `batch_size` samples of every rank. Raises StopIteration at the end of the last epoch.

        Where it raises another error, nothing has moved: the same samples can be asked for again.
        """
        check_open(self._is_closed)
        stop = self._position + batch_size * self._world_size
        if self._end is not None:
            stop = min(stop, self._end)
            if self._position >= self._end:
                raise StopIteration
        try:
            batch = self._rows(self._stream.first_row_at(self._position), self._stream.first_row_at(stop))
        except BaseException:
            self._forget_windows()
            raise
        self._position = stop
        return batch

    def return_to(self, place: int) -> None:
        """Go on from a `place` of this loader."""
        self._forget_windows()
        self._position = place

    def state_dict(self) -> dict[str, Any]:
        """JSON values, a few hundred bytes, the same on every rank and for any world size."""
        return {
            "format": _STATE_FORMAT,
            "data": self._data,
            "position": self._position,
            "order": self.order.facts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at, at this loader's own batch and world size."""
        check_state(state, expected={"format": _STATE_FORMAT, "data": self._data, "order": self.order.facts})
        self.return_to(int(state["position"]))

    def close(self) -> None:
        """Stop the threads. Batches already delivered stay valid; there are no more."""
        self._is_closed = True
        self._forget_windows()
        self._ahead.stop()
        self._stream.close()
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, start: int, stop: int) -> Batch:
        """The rank's rows [start, stop): out of one window, or joined where they cross windows."""
        if start == stop:  # the last step of the epochs: the others read what is left
            if not self._windows:
                self._open_next()
            return self._columns(self._windows[0].wait(), 0, 0)
        parts: list[Batch] = []
        while start < stop:
            part, start = self._rows_of_one_window(start, stop)
            parts.append(part)
        self._open_ahead()
        return parts[0] if len(parts) == 1 else join_batches(parts, memory=self._memory)

    def _rows_of_one_window(self, start: int, stop: int) -> tuple[Batch, int]:
        """Rows from `start` on that lie in one window, and where they end, at most at `stop`.

        Windows before it go first, so that it is filled in their memory: nobody else may hold them.
        """
        while not self._windows or self._windows[0].stop <= start:
            if self._windows:
                self._windows.popleft().wait()
            if not self._windows:
                self._open_next()
        rows = self._windows[0]
        high = min(stop, rows.stop)
        return self._columns(rows.wait(), start - rows.first, high - rows.first), high

    def _columns(self, window: Window, start: int, stop: int) -> Batch:
        """Rows [start, stop) of a window, copied."""
        batch: Batch = {
            field.name: self._column(window.columns[field.name], field, start, stop) for field in self._fields
        }
        if window.numbers is not None:
            batch[SAMPLE_NUMBER] = torch.from_numpy(window.numbers[start:stop].copy())
        return batch

    def _column(
        self, column: FixedColumn | RaggedColumn, field: Field, start: int, stop: int
    ) -> torch.Tensor | RaggedTensor:
        if isinstance(column, FixedColumn):
            return _from_numpy(column.gather(start, stop), field)
        starts, stops = column.starts[start:stop], column.stops[start:stop]
        values = _from_numpy(column.values, field)
        return RaggedTensor.gathered(values, starts=starts, stops=stops, memory=self._memory)

    def _open_ahead(self) -> None:
        """Let the threads fill the next window while this one is used."""
        if not self._stream.is_threaded or len(self._windows) != 1:
            return
        if self._end is None or self._windows[0].span.stop < self._end:
            self._open_next()

    def _open_next(self) -> None:
        if self._windows:
            self._windows[-1].wait()
        if self._opened_to is None:
            self._opened_to = position = self._position
            self._ahead.begin(
                lambda scout: frames_of(self._stream.coming(position, split=scout, end=self._end))
            )
        self._windows.append(self._stream.open(self._opened_to))
        self._opened_to = self._windows[-1].span.stop

    def _forget_windows(self) -> None:
        """Drop what was read ahead; the threads must have let go of it before shards may close."""
        futures.wait([part for rows in self._windows for part in rows.filling])
        # In this order Ctrl-C between two lines costs a window that is read twice, never one left out.
        self._opened_to = None
        self._stream.jump()
        self._windows.clear()


def check_open(is_closed: bool) -> None:
    """Raises ConfigError for a loader that was closed: it would open shards again that nobody closes."""
    if is_closed:
        raise ConfigError(
            "the loader is closed", hint="take its batches inside the `with` block, or open a new one"
        )


def check_state(state: dict[str, Any], *, expected: dict[str, Any]) -> None:
    """Raises ConfigError for a loader's state of another data set or order."""
    for name, value in expected.items():
        if state.get(name) != value:
            raise ConfigError(
                f"loader state has {name} {state.get(name)}, this loader {value}", hint=_HINTS.get(name)
            )


def plan_order(split: SplitReader, *, seed: int, window_bytes: int, lanes: int | None = None) -> Order:
    """The order of a split: sections of one shard, and up to 64 lanes that share `window_bytes`.

    Frames of fixed fields are all like the first; those of variable fields are sized by their means. Depends
    on the data, the seed and these numbers only, never on ranks. Raises ConfigError when empty.
    """
    if not split.num_samples:
        raise ConfigError("the split has no samples", hint="import records into it, or choose another split")
    is_ragged = any(field.is_ragged for field in split.schema.fields)
    return choose_order(
        num_samples=split.num_samples,
        num_frames=split.num_frames,
        is_ragged=is_ragged,
        seed=seed,
        window_bytes=window_bytes,
        lanes=lanes,
        **(_mean_sizes(split) if is_ragged else _first_sizes(split)),
    )


def _mean_sizes(split: SplitReader) -> dict[str, int]:
    return mean_sizes(
        num_samples=split.num_samples,
        num_shards=split.num_shards,
        num_frames=split.num_frames,
        size_bytes=split.size_bytes,
    )


def _first_sizes(split: SplitReader) -> dict[str, int]:
    shard = split.open_shard(0)
    frame = shard.frames[0]
    shard.close()
    return {
        "section_samples": shard.num_samples,
        "frame_samples": int(frame["num_samples"]),
        "frame_bytes": int(frame["plain_bytes"]),
    }


def _choose(schema: Schema, names: tuple[str, ...] | None) -> tuple[Field, ...]:
    known = {field.name: field for field in schema.fields}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(f"the split has no field {unknown[0]!r}", hint=f"its fields are {', '.join(known)}")
    return tuple(known[name] for name in names or known)


def _from_numpy(array: NDArray[Any], field: Field) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if field.dtype == "bfloat16" else tensor


def join_batches(parts: list[Batch], *, memory: BatchMemory) -> Batch:
    """One batch with the samples of all parts, in order: a copy. Parts must have the same fields."""
    return {name: _join_column([part[name] for part in parts], memory=memory) for name in parts[0]}


def _join_column(
    parts: list[torch.Tensor | RaggedTensor], *, memory: BatchMemory
) -> torch.Tensor | RaggedTensor:
    ragged = [part for part in parts if isinstance(part, RaggedTensor)]
    if ragged:
        return join(ragged, memory=memory)
    return join_arrays([part for part in parts if isinstance(part, torch.Tensor)], memory=memory)

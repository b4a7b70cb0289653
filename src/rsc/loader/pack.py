"""Documents packed end to end into sequences of one length, for language models.

    documents, in the order of the seed        "to be", "or not"
    stream: a separator leads each document    S t o _ b e S o r _ n o t
    rows of L tokens, targets one further on   [S t o _] -> [t o _ b]   [b e S o] -> [e S o r]   ...

The last token of a document has the separator as its target (here the document ends), the separator has the
first token of its own document: no target needs to be masked, and a model can be started with the separator
alone. `document_ids_BL` tells which tokens of a row belong together; attention must not cross them.

There is a stream for each lane of the order (order.py): lane g packs the documents at positions g modulo
`lanes`. Row r of the run is the next row of lane r modulo `lanes`, and rank k of W takes the rows that are k
modulo W. So the rows do not depend on the ranks, and when W divides `lanes` a rank reads its own lanes only.
docs/decisions/0009 has what else was considered.

Shapes: B rows of this rank, L tokens a row.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rsc.errors import ConfigError, DataError
from rsc.loader.lanes import LanePlace, LaneTokens
from rsc.loader.loader import Column, check_open, check_state, plan_order
from rsc.loader.order import DEFAULT_WINDOW_BYTES, Int64s
from rsc.loader.prefetch import ReadAhead, by_bytes, frames_of
from rsc.loader.stream import WindowStream, filling_threads
from rsc.store.format.schema import Field
from rsc.store.splits import SplitReader

BYTE_SEPARATOR = 256
_TOKEN_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64")  # what int64 can hold
_STATE_FORMAT = 3


class PackedPlace(NamedTuple):
    """The next row of the run, and where each lane of a rank is."""

    row: int
    lanes: dict[int, LanePlace]


class PackedLoader:
    """An endless iterator of {"tokens_BL", "targets_BL", "document_ids_BL"}, all int64 [B, L].

    `agree` is called with int64 [2, lanes], zero for lanes that this rank does not read, and returns the
    largest number of all ranks at each place: a reduction. All ranks of a world that share the lanes must
    ask for `state_dict` together. Raises ConfigError for a field that does not hold tokens, a rank
    outside the world, ranks without `agree`, or state of other data, another order or packing; DataError for
    an id that is not below `vocabulary`.
    """

    def __init__(
        self,
        split: SplitReader,
        *,
        sequence_length: int,
        batch_size: int,
        field: str = "text",
        separator: int = BYTE_SEPARATOR,
        vocabulary: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        agree: Callable[[Int64s], Int64s] | None = None,
        seed: int = 0,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        lanes: int | None = None,
        threads: int = 0,
        connections: int = 16,
    ) -> None:
        _check_place(rank=rank, world_size=world_size, batch_size=batch_size, can_agree=agree is not None)
        column = _packable(split, field)
        self._split = split
        self._vocabulary = vocabulary
        self._order = plan_order(split, seed=seed, window_bytes=window_bytes, lanes=lanes)
        self._length = sequence_length
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._agree = agree
        self._identity = {
            "format": _STATE_FORMAT,
            "data": split.manifest.totals.merkle_root.hex(),
            "order": self._order.facts,
            "packing": {"field": field, "sequence_length": sequence_length, "separator": separator},
        }
        self._pool = filling_threads(threads)
        self._ahead = ReadAhead(split, lanes=self._order.lanes, connections=connections)
        step = math.gcd(self._order.lanes, world_size)
        self._lanes = {
            lane: self._open_lane(column, lane=lane, separator=separator)
            for lane in range(rank % step, self._order.lanes, step)
        }
        self._row = 0
        self._before: PackedPlace | None = None  # of what has begun and is not done: where to return to
        self._is_begun = False
        self._is_closed = False

    @property
    def row(self) -> int:
        """Rows delivered to all ranks since the start of the run; the next step begins here."""
        self._settle()
        return self._row

    @property
    def place(self) -> PackedPlace:
        """Where this rank is; `state_dict` says it for all ranks."""
        self._settle()
        return PackedPlace(self._row, {number: lane.place for number, lane in self._lanes.items()})

    @property
    def samples_an_epoch(self) -> int | None:
        """None: how many rows a split's documents fill is known only when they were read."""
        return None

    @property
    def columns(self) -> dict[str, Column]:
        """What a batch holds, by name."""
        return dict.fromkeys(("tokens_BL", "targets_BL", "document_ids_BL"), Column("int64", (self._length,)))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        return self.take(self._batch_size)

    def take(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next `batch_size` rows of every rank. Where it raises, nothing has moved."""
        check_open(self._is_closed)
        self._before = self.place
        try:
            batch = self._take(batch_size)
        except BaseException:
            self._settle()
            raise
        self._before = None
        return batch

    def return_to(self, place: PackedPlace) -> None:
        """Go on from a `place` of this loader. What Ctrl-C cuts short is done by the next use."""
        self._before = place
        for number, lane in self._lanes.items():
            lane.jump(place.lanes[number])
        self._row = place.row
        self._is_begun = False
        self._before = None

    def _settle(self) -> None:
        if self._before is not None:
            self.return_to(self._before)

    def state_dict(self) -> dict[str, Any]:
        """JSON values, under 1 KB for 64 lanes, the same on every rank and for any world size.

        Asks the other ranks where their lanes are.
        """
        self._settle()
        places = np.zeros((2, self._order.lanes), np.int64)
        for number, lane in self._lanes.items():
            places[:, number] = lane.place
        if self._agree is not None and len(self._lanes) < self._order.lanes:
            places = self._agree(places)
        return {**self._identity, "row": self._row, "places": _encode(places)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at, at this loader's own batch and world size."""
        check_state(state, expected=self._identity)
        places = _decode(state["places"], lanes=self._order.lanes)
        lanes = {number: LanePlace(*places[:, number].tolist()) for number in self._lanes}
        self.return_to(PackedPlace(int(state["row"]), lanes))

    def close(self) -> None:
        """Stop the threads. Batches already delivered stay valid; there are no more."""
        self._is_closed = True
        for lane in self._lanes.values():
            lane.close()
        self._ahead.stop()
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, batch_size: int) -> dict[str, torch.Tensor]:
        rows = range(self._row, self._row + batch_size * self._world_size)
        rows_of_lanes = [row for row in rows if row % self._order.lanes in self._lanes]
        self._prepare(rows_of_lanes)
        tokens = np.empty((batch_size, self._length + 1), np.int64)
        documents = np.empty((batch_size, self._length), np.int64)
        filled = 0
        for row in rows_of_lanes:
            lane = self._lanes[row % self._order.lanes]
            if row % self._world_size == self._rank:
                lane.fill(tokens[filled], documents[filled])
                filled += 1
            else:
                lane.skip(self._length)
        if self._vocabulary is not None and tokens.size and int(tokens.max()) >= self._vocabulary:
            raise DataError(
                f"the data holds token {int(tokens.max())}, the model has ids below {self._vocabulary}",
                hint="set model.text.vocabulary and model.text.tokenizer to those of the data",
            )
        self._row = rows.stop
        return {
            "tokens_BL": torch.from_numpy(tokens[:, :-1].copy()),
            "targets_BL": torch.from_numpy(tokens[:, 1:].copy()),
            "document_ids_BL": torch.from_numpy(documents - documents[:, :1]),
        }

    def _open_lane(self, field: Field, *, lane: int, separator: int) -> LaneTokens:
        lanes = self._order.lanes
        stream = WindowStream(
            self._split,
            order=self._order,
            fields=(field,),
            rank=lane,
            world_size=lanes,
            after_read=self._ahead.advance,
            pool=self._pool,
        )
        is_ahead = self._pool is not None
        return LaneTokens(
            stream, lane=lane, lanes=lanes, field=field.name, separator=separator, is_ahead=is_ahead
        )

    def _prepare(self, rows: list[int]) -> None:
        """Begin to read ahead, and to fill the windows that the first rows come from."""
        if not self._is_begun:
            count = self._order.lanes
            in_turn = sorted(self._lanes, key=lambda number: (number - self._row) % count)
            lanes = [self._lanes[number] for number in in_turn]
            unread = [lane.unread() for lane in lanes]
            self._ahead.begin(
                lambda scout: frames_of(by_bytes([lane.coming(split=scout) for lane in lanes], unread=unread))
            )
            self._is_begun = True
        if self._pool is not None:
            for number in dict.fromkeys(row % self._order.lanes for row in rows):
                self._lanes[number].prepare()


def _check_place(*, rank: int, world_size: int, batch_size: int, can_agree: bool) -> None:
    if not 0 <= rank < world_size or batch_size < 1:
        raise ConfigError(f"rank {rank} of {world_size} with batch size {batch_size}: not a place in a job")
    if world_size > 1 and not can_agree:
        raise ConfigError(
            f"rank {rank} of {world_size} cannot learn where the others' lanes are",
            hint="give PackedLoader `agree`, a reduction to the largest numbers of all ranks",
        )


def _packable(split: SplitReader, name: str) -> Field:
    fields = {field.name: field for field in split.schema.fields}
    if name not in fields:
        raise ConfigError(f"the split has no field {name!r}", hint=f"its fields are {', '.join(fields)}")
    field = fields[name]
    if not field.is_ragged:
        raise ConfigError(f"field {name!r} has a fixed shape and cannot be packed", hint="use Loader")
    if field.dtype not in _TOKEN_DTYPES:
        raise ConfigError(
            f"field {name!r} is {field.dtype}: tokens are one of {', '.join(_TOKEN_DTYPES)}",
            hint="use Loader for series of other numbers",
        )
    return field


def _encode(places: NDArray[np.int64]) -> str:
    """Places of the lanes [2, lanes] in few characters: base64 of LEB128 numbers.

    The least document of all lanes, then, lane by lane, documents beyond it and tokens skipped. Lanes keep
    together, so each takes some five bytes.
    """
    least = int(places[0].min())
    numbers = [least]
    for document, skipped in places.T.tolist():
        numbers += [document - least, skipped]
    encoded = bytearray()
    for number in numbers:
        while number >= 128:
            encoded.append(number & 127 | 128)
            number >>= 7
        encoded.append(number)
    return base64.b64encode(encoded).decode()


def _decode(text: str, *, lanes: int) -> NDArray[np.int64]:
    """Inverse of `_encode`: int64 [2, lanes]."""
    numbers = [0]
    shift = 0
    for byte in base64.b64decode(text):
        numbers[-1] |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(0)
            shift = 0
    least, *rest = numbers[:-1]
    places = np.array(rest, np.int64).reshape(lanes, 2).T.copy()
    places[0] += least
    return places

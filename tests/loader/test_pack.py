from __future__ import annotations

import json
import math
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError, DataError
from rsc.loader.frames import Shard
from rsc.loader.loader import Loader
from rsc.loader.pack import PackedLoader, _decode, _encode
from rsc.loader.prefetch import by_bytes, frames_of
from rsc.loader.ragged import RaggedTensor
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MakeSplit

SEPARATOR = 256
TEXT = Schema((Field("text", "string"),))
LANES = 4
ORDER: dict[str, Any] = {"window_bytes": 4096, "lanes": LANES, "seed": 3}
ROWS = {**ORDER, "sequence_length": 16}
LEGS = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(0, 6))  # world size, batch size, steps


def letters(*, num_documents: int, most: int) -> Any:
    """Documents of 0 to `most` bytes, each its own run of letters."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, most + 1, num_documents)
    return columns_from_records(
        TEXT, [{"text": bytes([97 + n % 26]) * int(k)} for n, k in enumerate(lengths)]
    )


@pytest.fixture
def texts(make_split: MakeSplit) -> SplitReader:
    """150 documents: some ten rounds and a rest in four lanes."""
    return make_split(TEXT, letters(num_documents=150, most=60), frame_bytes=200, shard_bytes=900)


def open_ranks(split: SplitReader, *, world_size: int, **options: Any) -> list[PackedLoader]:
    """Every rank of a world, in one process. They agree on their lanes as processes would by a reduction."""
    ranks: list[PackedLoader] = []

    def agree(mine: Any) -> Any:
        places = np.zeros_like(mine)
        for loader in ranks:
            for lane, reader in loader._lanes.items():
                places[:, lane] = np.maximum(places[:, lane], reader.place)
        return places

    ranks += [
        PackedLoader(split, rank=rank, world_size=world_size, agree=agree, **options)
        for rank in range(world_size)
    ]
    return ranks


def close(ranks: list[PackedLoader]) -> None:
    for loader in ranks:
        loader.close()


def take_rows(ranks: list[PackedLoader], *, steps: int) -> list[list[int]]:
    """Tokens of `steps` steps of all ranks, row by row in the order of the run."""
    first = ranks[0].row
    rows = [iter([row for _ in range(steps) for row in rows_of(next(rank))]) for rank in ranks]
    return [next(rows[row % len(ranks)]) for row in range(first, ranks[0].row)]


def rows_of(batch: dict[str, torch.Tensor], name: str = "tokens_BL") -> list[list[int]]:
    rows: list[list[int]] = batch[name].tolist()
    return rows


def rows_alone(split: SplitReader, *, count: int) -> list[list[int]]:
    with PackedLoader(split, batch_size=count, **ROWS) as loader:
        return rows_of(next(loader))


def lane_streams(split: SplitReader, *, epochs: int) -> list[list[int]]:
    """The tokens that each lane must deliver, in order, spelled out the slow way."""
    documents: list[bytes] = []
    with Loader(split, batch_size=10, epochs=epochs, **ORDER) as loader:
        for batch in loader:
            column = batch["text"]
            assert isinstance(column, RaggedTensor)
            documents += column.to_bytes()
    return [
        [token for document in documents[lane::LANES] for token in (SEPARATOR, *document)]
        for lane in range(LANES)
    ]


@pytest.mark.parametrize("threads", [0, 2])
def test_rows_are_the_streams_of_the_lanes_cut_into_lengths(texts: SplitReader, threads: int) -> None:
    streams = lane_streams(texts, epochs=3)
    num_rows = min(len(stream) for stream in streams) // 32 - 1
    with PackedLoader(texts, batch_size=LANES, threads=threads, **(ROWS | {"sequence_length": 32})) as loader:
        batches = [next(loader) for _ in range(num_rows)]
    for lane, stream in enumerate(streams):
        tokens = [token for batch in batches for token in rows_of(batch)[lane]]
        targets = [token for batch in batches for token in rows_of(batch, "targets_BL")[lane]]
        assert tokens == stream[: 32 * num_rows]
        assert targets == stream[1 : 32 * num_rows + 1]


def test_every_document_of_every_epoch_is_packed_once(make_split: MakeSplit) -> None:
    """Lanes end an epoch at different rows; each has its own documents of it, and no other."""
    schema = Schema((Field("ids", "tokens", "uint16"),))
    records = [{"ids": np.full(1 + n % 13, n, np.uint16)} for n in range(97)]
    split = make_split(schema, columns_from_records(schema, records), frame_bytes=100, shard_bytes=500)
    options = ROWS | {"field": "ids", "separator": 60_000}
    with PackedLoader(split, batch_size=1, **options) as loader:
        seen: Counter[int] = Counter()
        while min(lane.place.document for lane in loader._lanes.values()) * LANES <= 3 * 97:
            seen.update(token for row in rows_of(next(loader)) for token in row)
        ahead = max(lane.place.document for lane in loader._lanes.values()) * LANES
    assert set(seen) == {60_000, *range(97)}
    for number in range(97):
        assert 3 * (1 + number % 13) <= seen[number] <= math.ceil(ahead / 97) * (1 + number % 13)


def test_document_ids_change_exactly_at_separators(texts: SplitReader) -> None:
    with PackedLoader(texts, batch_size=4, **(ROWS | {"sequence_length": 48})) as loader:
        for _ in range(30):
            batch = next(loader)
            tokens, ids = batch["tokens_BL"], batch["document_ids_BL"]
            assert (ids[:, 0] == 0).all()
            assert torch.equal(ids.diff(dim=1), (tokens[:, 1:] == SEPARATOR).long())
            for row, row_ids in zip(tokens, ids, strict=True):
                for document in row_ids.unique():
                    found = set(row[row_ids == document].tolist()) - {SEPARATOR}
                    assert len(found) <= 1, "two documents share an id"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_rows_do_not_depend_on_the_world_size(texts: SplitReader, world_size: int) -> None:
    ranks = open_ranks(texts, world_size=world_size, batch_size=3, **ROWS)
    rows = take_rows(ranks, steps=240 // world_size)
    close(ranks)
    assert rows == rows_alone(texts, count=len(rows))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_resume_at_every_step_gives_the_same_rows(texts: SplitReader, world_size: int) -> None:
    ranks = open_ranks(texts, world_size=world_size, batch_size=2, **ROWS)
    states, steps = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(ranks[0].state_dict())))
        steps.append(take_rows(ranks, steps=1))
    for start, state in enumerate(states):
        for loader in ranks:
            loader.load_state_dict(state)
        for expected in steps[start : start + 2]:
            assert take_rows(ranks, steps=1) == expected
    close(ranks)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(legs=st.lists(LEGS, min_size=1, max_size=4))
def test_world_sizes_may_change_at_any_step(texts: SplitReader, legs: list[tuple[int, int, int]]) -> None:
    """Whatever the ranks and kills in between: the rows of one process, in its order, each once."""
    seen: list[list[int]] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in [*legs, (1, 10, 1)]:
        ranks = open_ranks(texts, world_size=world_size, batch_size=batch_size, **ROWS)
        if state is not None:
            for loader in ranks:
                loader.load_state_dict(state)
        seen += take_rows(ranks, steps=steps)
        state = json.loads(json.dumps(ranks[0].state_dict()))
        assert all(loader.state_dict() == state for loader in ranks)
        close(ranks)
    assert seen == rows_alone(texts, count=len(seen))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_frame_is_read_by_one_rank_when_ranks_divide_the_lanes(
    texts: SplitReader, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read amplification is 1 but for the frames that lanes share at the ends of their sections."""
    read = 0
    read_into = Shard.read_into

    def counting(shard: Shard, frame: int, plain: Any, *, scratch: bytearray) -> None:
        nonlocal read
        read += 1
        read_into(shard, frame, plain, scratch=scratch)

    monkeypatch.setattr(Shard, "read_into", counting)
    ranks = open_ranks(texts, world_size=world_size, batch_size=LANES // world_size, **ROWS)
    while (least := min(lane.position for rank in ranks for lane in rank._lanes.values())) < 5 * 150:
        take_rows(ranks, steps=1)
    most = max(lane.position for rank in ranks for lane in rank._lanes.values())
    order = ranks[0]._order
    close(ranks)
    shared = 2 * (order.num_rounds + 1) * LANES * math.ceil(most / 150)
    assert most - least < 150, "the lanes keep together"
    # Every lane has windows of a part of an epoch open; nothing else is read twice.
    assert 5 * texts.num_frames <= read <= math.ceil(most / 150) * texts.num_frames + shared


@pytest.mark.parametrize("start", [0, 777])
def test_the_list_of_coming_reads_keeps_step_with_what_is_read(
    make_split: MakeSplit, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes drift apart in documents. The list follows their bytes: however long the run, after any number of
    reads the list so far and the reads so far differ by less than a window."""
    split = make_split(TEXT, letters(num_documents=1500, most=120), frame_bytes=400, shard_bytes=20_000)
    read: list[tuple[str, int]] = []
    read_into = Shard.read_into

    def noting(shard: Shard, frame: int, plain: Any, *, scratch: bytearray) -> None:
        read.append((shard._path, frame))
        read_into(shard, frame, plain, scratch=scratch)

    monkeypatch.setattr(Shard, "read_into", noting)
    with PackedLoader(split, batch_size=start + 1, **ROWS) as loader:
        next(loader)
        loader.load_state_dict(loader.state_dict())
        read.clear()
        lanes = [loader._lanes[(loader.row + n) % LANES] for n in range(LANES)]
        windows = by_bytes(
            [lane.coming(split=split) for lane in lanes], unread=[lane.unread() for lane in lanes]
        )
        coming = frames_of(windows)
        loader.take(12_000)
    listed = [(split.place.shard_path(shard), frame) for shard, frame in islice(coming, len(read))]
    assert len(read) > 2 * split.num_frames
    window_frames = 4096 // 400
    for count in range(0, len(read), 50):
        assert (Counter(read[:count]) - Counter(listed[:count])).total() < window_frames


def test_state_is_small_and_says_where_each_lane_is(make_split: MakeSplit) -> None:
    """64 lanes a thousand documents apart, far into a run: under 1 KB."""
    split = make_split(TEXT, letters(num_documents=600, most=60), frame_bytes=100, shard_bytes=900)
    rng = np.random.default_rng(1)
    with PackedLoader(
        split, sequence_length=1024, batch_size=1, window_bytes=32 << 20, lanes=64, seed=2**63
    ) as loader:
        next(loader)
        state = loader.state_dict()
        places = np.stack([10**12 + rng.integers(0, 1000, 64), rng.integers(0, 50_000, 64)])
        far = json.dumps(state | {"row": 10**13, "places": _encode(places)})
    assert len(json.dumps(state)) < 1024
    assert len(far) < 1024
    assert np.array_equal(_decode(json.loads(far)["places"], lanes=64), places)


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), min_size=1, max_size=9))
def test_places_are_read_as_they_were_written(places: list[tuple[int, int]]) -> None:
    array = np.array(places, np.int64).T
    assert np.array_equal(_decode(_encode(array), lanes=len(places)), array)


@pytest.mark.parametrize(("threads", "windows"), [(0, 1), (1, 2)])
def test_windows_of_a_lane_take_turns(texts: SplitReader, threads: int, windows: int) -> None:
    """Views of a window are let go of before the next one is opened in its memory."""
    with PackedLoader(texts, batch_size=LANES, threads=threads, **ROWS) as loader:
        for _ in range(300):
            next(loader)
        assert {len(lane._stream._memories) for lane in loader._lanes.values()} == {windows}


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_lanes_hold_one_descriptor_for_each_shard_they_keep(make_split: MakeSplit) -> None:
    """A lane keeps four shards, and opens up to four more when it looks up a section of the last round. Two
    descriptors a shard were 102 here; an ordinary user may hold 1,024."""
    split = make_split(TEXT, letters(num_documents=2000, most=60), frame_bytes=200, shard_bytes=700)
    assert split.num_shards > 8 * 4
    before = num_descriptors()
    most = 0
    with PackedLoader(split, batch_size=64, **(ROWS | {"lanes": 8})) as loader:
        for _ in range(120):
            next(loader)
            most = max(most, num_descriptors() - before)
    assert most <= 8 * (4 + 4)


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_sets_smaller_than_the_lanes_are_packed(make_split: MakeSplit) -> None:
    """Two documents in four lanes: some lanes have none in most windows."""
    records = [{"text": b"ab"}, {"text": b""}]
    split = make_split(TEXT, columns_from_records(TEXT, records), frame_bytes=100, shard_bytes=900)
    ranks = open_ranks(split, world_size=2, batch_size=2, **ROWS)
    rows = take_rows(ranks, steps=5)
    close(ranks)
    assert {token for row in rows for token in row} == {SEPARATOR, *b"ab"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint64"])
def test_series_that_are_no_tokens_are_refused(make_split: MakeSplit, dtype: str) -> None:
    """They would be cut to whole numbers, taken for their bits, or wrap around."""
    schema = Schema((Field("series", "tokens", dtype),))
    values = np.zeros(3, schema.fields[0].storage)
    split = make_split(
        schema, columns_from_records(schema, [{"series": values}]), frame_bytes=100, shard_bytes=900
    )
    with pytest.raises(ConfigError, match=f"'series' is {dtype}"):
        PackedLoader(split, field="series", sequence_length=8, batch_size=1)


def test_fixed_fields_lonely_ranks_and_other_packings_are_refused(
    texts: SplitReader, numbers: SplitReader
) -> None:
    with pytest.raises(ConfigError, match="number"):
        PackedLoader(numbers, field="number", sequence_length=8, batch_size=1)
    with pytest.raises(ConfigError, match="caption"):
        PackedLoader(texts, field="caption", sequence_length=8, batch_size=1)
    with pytest.raises(ConfigError, match="rank 1 of 2"):
        PackedLoader(texts, sequence_length=8, batch_size=1, rank=1, world_size=2)
    with PackedLoader(texts, batch_size=1, **ROWS) as loader:
        state = loader.state_dict()
        state["packing"] = state["packing"] | {"field": "title"}
        with pytest.raises(ConfigError, match="packing"):
            loader.load_state_dict(state)
    for change in ({"sequence_length": 9}, {"seed": 4}, {"lanes": 2}):
        with (
            PackedLoader(texts, batch_size=1, **ROWS) as loader,
            PackedLoader(texts, batch_size=1, **(ROWS | change)) as other,
            pytest.raises(ConfigError, match="loader state has"),
        ):
            other.load_state_dict(loader.state_dict())


def test_an_id_that_the_model_has_no_row_for_is_no_token(texts: SplitReader) -> None:
    with PackedLoader(texts, batch_size=4, vocabulary=257, **ROWS) as loader:
        assert int(next(loader)["tokens_BL"].max()) < 257
    with (
        PackedLoader(texts, batch_size=4, vocabulary=100, **ROWS) as loader,
        pytest.raises(DataError, match="the model has ids below 100"),
    ):
        next(loader)

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError, IntegrityError
from rsc.loader.frames import Shard
from rsc.loader.loader import Batch, Loader, plan_order
from rsc.loader.memory import WindowMemory
from rsc.loader.ragged import RaggedTensor
from rsc.loader.shuffle_quality import measure_shuffle
from rsc.store.bulk.local import LocalStore
from rsc.store.bulk.locations import open_store
from rsc.store.format.columns import Columns, Ragged, columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MIXED, MakeSplit, mixed_columns, mixed_record

SMALL = {"window_bytes": 4096, "lanes": 4}
LEGS = st.tuples(st.integers(1, 8), st.integers(1, 30), st.integers(0, 3))  # world size, batch size, steps


def numbers_of(batch: Batch) -> list[int]:
    column = batch["number"]
    assert isinstance(column, torch.Tensor)
    return [int(number) for number in column]


def in_global_order(ranks: list[list[list[int]]], *, position: int) -> list[int]:
    """Samples of all steps of all ranks in the order of their positions: position p is rank p % R's next."""
    parts = [iter([number for batch in batches for number in batch]) for batches in ranks]
    total = sum(len(batch) for batches in ranks for batch in batches)
    return [next(parts[(position + n) % len(parts)]) for n in range(total)]


def run_epoch(split: SplitReader, *, world_size: int, batch_size: int, **options: Any) -> list[int]:
    """Every rank in turn, one epoch; the samples in global order."""
    ranks = []
    for rank in range(world_size):
        with Loader(
            split, batch_size=batch_size, rank=rank, world_size=world_size, epochs=1, **options
        ) as loader:
            ranks.append([numbers_of(batch) for batch in loader])
    return in_global_order(ranks, position=0)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_epoch_is_every_sample_once_in_another_order(numbers: SplitReader, threads: int) -> None:
    seen = run_epoch(numbers, world_size=1, batch_size=37, threads=threads, **SMALL)
    assert sorted(seen) == list(range(1000))
    assert seen != sorted(seen)


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 9), (3, 7), (4, 5), (7, 30), (8, 1)])
def test_the_global_order_does_not_depend_on_the_world_size(
    numbers: SplitReader, world_size: int, batch_size: int
) -> None:
    alone = run_epoch(numbers, world_size=1, batch_size=20, threads=0, **SMALL)
    assert run_epoch(numbers, world_size=world_size, batch_size=batch_size, threads=0, **SMALL) == alone


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("threads", [0, 3])
def test_every_field_of_a_sample_travels_together(mixed: SplitReader, threads: int, world_size: int) -> None:
    seen = sum(
        check_fields(mixed, rank=rank, world_size=world_size, threads=threads) for rank in range(world_size)
    )
    assert seen == 700


def check_fields(split: SplitReader, **place: int) -> int:
    """Compare every field of an epoch with what its number says; returns the number of samples."""
    seen = 0
    with Loader(split, batch_size=23, epochs=1, **SMALL, **place) as loader:
        for batch in loader:
            images, texts, tokens = batch["image"], batch["text"], batch["tokens"]
            assert isinstance(images, torch.Tensor)
            assert isinstance(texts, RaggedTensor)
            assert isinstance(tokens, RaggedTensor)
            text_bytes = texts.to_bytes()
            for i, number in enumerate(numbers_of(batch)):
                expected = mixed_record(number)
                assert np.array_equal(images[i].numpy(), expected["image"])
                assert text_bytes[i] == expected["text"]
                assert np.array_equal(tokens[i].numpy(), expected["tokens"])
                seen += 1
    return seen


def test_object_storage_gives_the_same_batches(make_split: MakeSplit, mixed: SplitReader) -> None:
    """Ranged reads into a buffer instead of a memory map."""
    split = make_split(
        MIXED, mixed_columns(700), frame_bytes=1024, shard_bytes=10_000, store=open_store("memory://")
    )
    assert not isinstance(split.place.store, LocalStore)
    options: dict[str, Any] = {"batch_size": 50, "threads": 2, "epochs": 1, **SMALL}
    with Loader(split, **options) as remote, Loader(mixed, **options) as local:
        for batch, expected in zip(remote, local, strict=True):
            assert_same(batch, copy_of(expected))


def test_variable_samples_lie_end_to_end(mixed: SplitReader) -> None:
    with Loader(mixed, batch_size=50, **SMALL) as loader:
        texts = next(loader)["text"]
    assert isinstance(texts, RaggedTensor)
    assert texts.values.numpy().tobytes() == b"".join(texts.to_bytes())
    assert texts.offsets.tolist() == [0, *accumulate(texts.lengths().tolist())]
    some = texts.chosen(torch.tensor([7, 0, 7]))
    assert some.to_bytes() == [texts.to_bytes()[row] for row in (7, 0, 7)]
    assert some.values.numpy().tobytes() == b"".join(some.to_bytes())


def test_bfloat16_arrives_as_bfloat16(make_split: MakeSplit) -> None:
    """numpy has no such type; the store keeps its bit pattern."""
    schema = Schema((Field("fixed", "tensor", "bfloat16", (3,)), Field("series", "tokens", "bfloat16")))
    halves = torch.arange(40, dtype=torch.bfloat16)
    bits = halves.view(torch.uint16).numpy()
    fixed = np.repeat(bits[:, None], 3, axis=1)
    offsets = np.arange(41, dtype=np.int64)
    columns: Columns = {"fixed": fixed, "series": Ragged(values=bits, offsets=offsets)}
    split = make_split(schema, columns, frame_bytes=100, shard_bytes=10_000)
    with Loader(split, batch_size=40, **SMALL) as loader:
        batch = next(loader)
    fixed_column, series = batch["fixed"], batch["series"]
    assert isinstance(fixed_column, torch.Tensor)
    assert isinstance(series, RaggedTensor)
    assert fixed_column.dtype == series.values.dtype == torch.bfloat16
    assert torch.equal(fixed_column[:, 1], series.values)
    assert torch.equal(fixed_column[:, 0].sort().values, halves)


def test_resume_at_every_step_gives_the_same_batches(mixed: SplitReader) -> None:
    """Three epochs' worth of steps, restored at each one, across windows and epoch ends."""
    options: dict[str, Any] = {"batch_size": 64, "rank": 1, "world_size": 2, **SMALL}
    with Loader(mixed, **options) as loader:
        states, batches = [], []
        for _ in range(16):
            states.append(json.loads(json.dumps(loader.state_dict())))
            batches.append(copy_of(next(loader)))
    for start, state in enumerate(states):
        with Loader(mixed, **options) as resumed:
            resumed.load_state_dict(state)
            for expected in batches[start : start + 3]:
                assert_same(next(resumed), expected)


def test_going_back_in_the_same_loader_gives_the_same_batches(numbers: SplitReader) -> None:
    with Loader(numbers, batch_size=100, **SMALL) as loader:
        next(loader)
        state = loader.state_dict()
        ahead = [numbers_of(next(loader)) for _ in range(12)]
        loader.load_state_dict(state)
        assert [numbers_of(next(loader)) for _ in range(12)] == ahead


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(legs=st.lists(LEGS, min_size=1, max_size=5))
def test_world_sizes_may_change_at_any_step(numbers: SplitReader, legs: list[tuple[int, int, int]]) -> None:
    """4 -> 3 -> 8 -> 1 ranks and the like, killed in between: the order of one process, nothing else."""
    alone = run_epoch(numbers, world_size=1, batch_size=100, threads=0, **SMALL)
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in [*legs, (1, 100, 10**6)]:
        ranks = []
        for rank in range(world_size):
            with Loader(
                numbers, batch_size=batch_size, rank=rank, world_size=world_size, epochs=1, threads=0, **SMALL
            ) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                ranks.append([numbers_of(batch) for _, batch in zip(range(steps), loader, strict=False)])
                after = loader.state_dict()
        seen += in_global_order(ranks, position=len(seen))
        state = after
    assert seen == alone


def test_state_is_small_and_the_same_on_every_rank(numbers: SplitReader) -> None:
    states = []
    for rank in range(3):
        with Loader(numbers, batch_size=5, rank=rank, world_size=3, **SMALL) as loader:
            next(loader)
            states.append(json.dumps(loader.state_dict()))
    assert len(set(states)) == 1
    assert len(states[0]) < 1024


@pytest.mark.parametrize(
    ("state", "advice"),
    [({"format": 0}, "another version of rsc"), ({"data": ""}, "data set version"), ({"order": {}}, "seed")],
)
def test_the_hint_names_what_differs(numbers: SplitReader, state: dict[str, Any], advice: str) -> None:
    with Loader(numbers, batch_size=5, **SMALL) as loader, pytest.raises(ConfigError) as error:
        loader.load_state_dict(loader.state_dict() | state)
    assert advice in str(error.value.hint)


@pytest.mark.parametrize("change", [{"seed": 1}, {"lanes": 2}, {"window_bytes": 1024}])
def test_state_of_another_order_is_refused(numbers: SplitReader, change: dict[str, int]) -> None:
    with (
        Loader(numbers, batch_size=5, **SMALL) as loader,
        Loader(numbers, batch_size=5, **(SMALL | change)) as other,
        pytest.raises(ConfigError, match="order"),
    ):
        other.load_state_dict(loader.state_dict())


def test_state_of_other_data_is_refused(numbers: SplitReader, mixed: SplitReader) -> None:
    with (
        Loader(numbers, batch_size=5, **SMALL) as loader,
        Loader(mixed, batch_size=5, **SMALL) as other,
        pytest.raises(ConfigError, match="data"),
    ):
        other.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("fixture", ["numbers", "mixed"])
def test_each_frame_is_read_by_one_rank_when_ranks_divide_the_lanes(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read amplification is 1 but for the frames that lanes share at their ends, and, with variable fields,
    nothing for frames that cross windows: what is left of them is kept."""
    split: SplitReader = request.getfixturevalue(fixture)
    read: list[tuple[int, int]] = []
    read_into = Shard.read_into

    def counting(shard: Shard, frame: int, plain: Any, *, scratch: bytearray) -> None:
        read.append((int(shard.table["offset"][-1]), frame))
        read_into(shard, frame, plain, scratch=scratch)

    monkeypatch.setattr(Shard, "read_into", counting)
    for rank in range(2):
        with Loader(split, batch_size=10, rank=rank, world_size=2, epochs=1, threads=0, **SMALL) as loader:
            list(loader)
    assert len(read) >= split.num_frames
    sections = (loader.order.num_rounds + 1) * loader.order.lanes
    assert len(read) <= split.num_frames + 2 * sections


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_that_are_kept_are_not_overwritten(mixed: SplitReader, threads: int) -> None:
    options: dict[str, Any] = {"batch_size": 10, "threads": threads, "epochs": 3, **SMALL}
    with Loader(mixed, **options) as loader, Loader(mixed, **options) as again:
        kept = list(loader)
        for batch, expected in zip(kept, map(copy_of, again), strict=True):
            assert_same(batch, expected)


@pytest.mark.parametrize(("threads", "most"), [(0, 1), (2, 2)])
def test_one_window_is_in_memory_and_with_threads_the_next(
    mixed: SplitReader, numbers: SplitReader, threads: int, most: int
) -> None:
    """Also where batches and frames cross windows, and where the last batch is still held."""
    for split in (mixed, numbers):
        taken: set[int] = set()
        with Loader(split, batch_size=13, threads=threads, epochs=5, **SMALL) as loader:
            for _ in loader:
                taken |= {id(memory) for memory in loader._stream._memories}
        assert len(taken) == most


@pytest.mark.parametrize("threads", [0, 2])
def test_a_changed_frame_stops_the_loader(numbers: SplitReader, threads: int) -> None:
    path = next((numbers.place.store.root / "v1").rglob("*2.rsc"))  # type: ignore[attr-defined]
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 1
    path.write_bytes(damaged)
    with (
        Loader(numbers, batch_size=10, epochs=1, threads=threads, **SMALL) as loader,
        pytest.raises(IntegrityError) as error,
    ):
        list(loader)
    assert error.value.facts["outcome"] == "frame"
    assert "000000002.rsc: frame 0 of 5" in error.value.message
    assert "rsc data verify test" in str(error.value.hint)


def test_fields_can_be_chosen(mixed: SplitReader) -> None:
    with Loader(mixed, batch_size=8, fields=("image", "number"), **SMALL) as loader:
        assert set(next(loader)) == {"image", "number"}
    with pytest.raises(ConfigError, match="caption"):
        Loader(mixed, batch_size=8, fields=("caption",))


def test_a_fixed_field_behind_a_variable_one_is_found_in_every_frame(make_split: MakeSplit) -> None:
    """Frames with as many samples but other lengths: the fixed column begins elsewhere in each."""
    schema = Schema((Field("text", "string"), Field("number", "tensor", "int64")))
    records = [{"text": b"x" * (7 * n % 90), "number": n} for n in range(300)]
    split = make_split(schema, columns_from_records(schema, records), frame_bytes=600, shard_bytes=5000)
    with Loader(split, batch_size=16, epochs=1, fields=("number",), **SMALL) as loader:
        assert sorted(n for batch in loader for n in numbers_of(batch)) == list(range(300))


def test_ranks_beyond_the_samples_get_empty_last_batches(numbers: SplitReader) -> None:
    """1000 samples in steps of 3 x 7 = 21: the last step has 13 left, ranks 0..5 get 2, rank 6 gets 1."""
    last = []
    for rank in range(7):
        with Loader(numbers, batch_size=3, rank=rank, world_size=7, epochs=1, **SMALL) as loader:
            *_, batch = loader
            last.append(len(numbers_of(batch)))
    assert sum(last) == 13
    assert max(last) - min(last) <= 1


@pytest.mark.parametrize("world_size", [8, 12])
def test_lanes_and_ranks_without_a_sample_are_empty(make_split: MakeSplit, world_size: int) -> None:
    """Five samples in eight lanes: some lanes have no frame at all, and some ranks only such lanes."""
    schema = Schema((Field("number", "tensor", "int64"),))
    columns: Columns = {"number": np.arange(5, dtype=np.int64)}
    split = make_split(schema, columns, frame_bytes=16, shard_bytes=1000)
    options: dict[str, Any] = {"window_bytes": 4096, "lanes": 8}
    seen = run_epoch(split, world_size=world_size, batch_size=1, **options)
    assert sorted(seen) == list(range(5))
    assert seen == run_epoch(split, world_size=1, batch_size=5, **options)


@pytest.mark.parametrize(("rank", "world_size", "batch_size"), [(2, 2, 1), (-1, 2, 1), (0, 1, 0)])
def test_impossible_places_are_refused(
    numbers: SplitReader, rank: int, world_size: int, batch_size: int
) -> None:
    with pytest.raises(ConfigError):
        Loader(numbers, batch_size=batch_size, rank=rank, world_size=world_size)


SIZES = Schema((Field("text", "bytes"),))


def test_short_samples_at_the_start_do_not_decide_the_window(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 posts, a hundred a frame, before 600 documents of a frame each: windows were the whole set."""
    records = [{"text": b"p" * 30}] * 500 + [{"text": b"d" * 4000}] * 600
    split = make_split(SIZES, columns_from_records(SIZES, records), frame_bytes=4096, shard_bytes=1 << 20)
    peaks: list[int] = []
    take = WindowMemory.take

    def noting(memory: WindowMemory, name: str, size_bytes: int) -> Any:
        peaks.append(size_bytes)
        return take(memory, name, size_bytes)

    monkeypatch.setattr(WindowMemory, "take", noting)
    with Loader(split, batch_size=100, window_bytes=1 << 16, epochs=1) as loader:
        assert sum(len(batch["text"]) for batch in loader) == 1100
        quality = measure_shuffle(split.manifest, schema=SIZES, window_bytes=1 << 16)
        assert quality.lanes == loader.order.lanes
    assert max(peaks) < 4 * (1 << 16)


def test_one_huge_sample_at_the_start_leaves_the_rest_shuffled(make_split: MakeSplit) -> None:
    """Alone in its frame and larger than a window: there was one lane, and no shuffle."""
    records = [{"text": b"h" * 100_000}] + [{"text": b"r" * 400}] * 1000
    split = make_split(SIZES, columns_from_records(SIZES, records), frame_bytes=4096, shard_bytes=1 << 20)
    order = plan_order(split, seed=0, window_bytes=1 << 16)
    assert order.lanes > 1
    assert order.window_samples * order.lanes > 100


def test_no_lanes_are_refused(numbers: SplitReader) -> None:
    with pytest.raises(ConfigError, match="an order needs lanes, not 0"):
        Loader(numbers, batch_size=1, lanes=0)


def copy_of(batch: Batch) -> dict[str, Any]:
    return {
        name: column.clone() if isinstance(column, torch.Tensor) else [row.clone() for row in column]
        for name, column in batch.items()
    }


def assert_same(batch: Batch, expected: dict[str, Any]) -> None:
    for name, column in copy_of(batch).items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(column, expected[name])
        else:
            assert len(column) == len(expected[name])
            assert all(torch.equal(a, b) for a, b in zip(column, expected[name], strict=True))


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("batch_size", "world_size"), [(7, 1), (5, 3), (1, 1), (64, 2)])
def test_drop_last_gives_whole_batches_alone_and_counts_the_rest(
    numbers: SplitReader, batch_size: int, world_size: int, epochs: int
) -> None:
    place: dict[str, Any] = {"batch_size": batch_size, "world_size": world_size, "epochs": epochs, **SMALL}
    total = 0
    for rank in range(world_size):
        with Loader(numbers, rank=rank, drop_last=True, **place) as loader:
            sizes = [len(batch["number"]) for batch in loader]
            assert set(sizes) == {batch_size}
            total += sum(sizes)
            assert loader.num_dropped < batch_size * world_size
    assert total + loader.num_dropped == epochs * numbers.num_samples


def test_drop_last_that_leaves_nothing_or_drops_nothing_is_refused(numbers: SplitReader) -> None:
    with pytest.raises(ConfigError, match="less than one batch"):
        Loader(numbers, batch_size=numbers.num_samples + 1, epochs=1, drop_last=True, **SMALL)
    with pytest.raises(ConfigError, match="without an end"):
        Loader(numbers, batch_size=4, drop_last=True, **SMALL)

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.loader.loader import Loader
from rsc.loader.mix import MixChange, MixedLoader, MixEnd, share_step
from rsc.loader.pack import PackedLoader
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MakeSplit

SMALL: dict[str, Any] = {"window_bytes": 4096, "lanes": 2, "threads": 0}
NAMES = ("a", "b", "c")


@pytest.fixture
def splits(make_split: MakeSplit) -> dict[str, SplitReader]:
    """Three sets of 100, 200 and 300 numbers that begin at 1000, 2000 and 3000."""
    schema = Schema((Field("number", "tensor", "int64"),))
    return {
        name: make_split(
            schema, {"number": np.arange(size, dtype=np.int64) + base}, frame_bytes=160, shard_bytes=1000
        )
        for name, size, base in zip(NAMES, (100, 200, 300), (1000, 2000, 3000), strict=True)
    }


def open_mixed(
    splits: dict[str, SplitReader],
    changes: list[MixChange],
    *,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int,
) -> MixedLoader:
    place: dict[str, Any] = {"batch_size": 1, "rank": rank, "world_size": world_size}
    sources = {name: Loader(split, **place, **SMALL) for name, split in splits.items()}
    return MixedLoader(sources, changes=changes, batch_size=batch_size, world_size=world_size)


def numbers(batch: Any) -> list[int]:
    return [int(number) for number in batch["number"]]


def by_source(seen: list[int]) -> dict[str, int]:
    counted = Counter(NAMES[number // 1000 - 1] for number in seen)
    return {name: counted[name] for name in NAMES}


def test_shares_follow_the_weights_within_one_sample(splits: dict[str, SplitReader]) -> None:
    weights = {"a": 1, "b": 2, "c": 4}
    seen: list[int] = []
    with open_mixed(splits, [MixChange(0, weights)], batch_size=5) as mixed:
        for _ in range(60):
            batch = numbers(next(mixed))
            assert len(batch) == 5
            seen += batch
            for name, count in by_source(seen).items():
                assert abs(count - len(seen) * weights[name] / 7) < 1
    assert mixed.delivered == by_source(seen)


def test_each_source_keeps_its_own_order(splits: dict[str, SplitReader]) -> None:
    with open_mixed(splits, [MixChange(0, {"a": 1, "b": 1, "c": 1})], batch_size=9) as mixed:
        seen = [number for _ in range(50) for number in numbers(next(mixed))]
    with Loader(splits["b"], batch_size=150, **SMALL) as alone:
        assert [number for number in seen if 2000 <= number < 3000] == numbers(next(alone))


def test_weights_change_at_the_recorded_sample(splits: dict[str, SplitReader]) -> None:
    changes = [MixChange(0, {"a": 1, "b": 0, "c": 1}), MixChange(80, {"a": 0, "b": 1, "c": 3})]
    with open_mixed(splits, changes, batch_size=8) as mixed:
        before = [number for _ in range(10) for number in numbers(next(mixed))]
        after = [number for _ in range(10) for number in numbers(next(mixed))]
    assert by_source(before) == {"a": 40, "b": 0, "c": 40}
    assert by_source(after) == {"a": 0, "b": 20, "c": 60}


def test_resume_at_every_step_gives_the_same_batches(splits: dict[str, SplitReader]) -> None:
    changes = [MixChange(0, {"a": 3, "b": 2, "c": 1}), MixChange(53, {"a": 1, "b": 5, "c": 1})]
    place: dict[str, int] = {"rank": 1, "world_size": 2, "batch_size": 5}
    with open_mixed(splits, changes, **place) as mixed:
        states, batches = [], []
        for _ in range(20):
            states.append(json.loads(json.dumps(mixed.state_dict())))
            batches.append(numbers(next(mixed)))
    assert len(json.dumps(states[-1])) < 1024 + 250 * len(NAMES)
    for start, state in enumerate(states):
        with open_mixed(splits, changes, **place) as resumed:
            resumed.load_state_dict(state)
            assert [numbers(next(resumed)) for _ in batches[start : start + 4]] == batches[start : start + 4]


def test_world_size_may_change_without_losing_or_repeating(splits: dict[str, SplitReader]) -> None:
    """4 -> 3 -> 8 -> 1 ranks: each source's samples are those of its own order, all of them, once."""
    changes = [MixChange(0, {"a": 1, "b": 2, "c": 3})]
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in [(4, 3, 5), (3, 4, 4), (8, 2, 3), (1, 11, 6)]:
        for rank in range(world_size):
            with open_mixed(
                splits, changes, rank=rank, world_size=world_size, batch_size=batch_size
            ) as mixed:
                if state is not None:
                    mixed.load_state_dict(state)
                for _ in range(steps):
                    seen += numbers(next(mixed))
                after = mixed.state_dict()
        state = after
    for name, count in by_source(seen).items():
        with Loader(splits[name], batch_size=count, **SMALL) as alone:
            base = 1000 * (NAMES.index(name) + 1)
            assert sorted(n for n in seen if base <= n < base + 1000) == sorted(numbers(next(alone)))


def test_the_past_of_a_mixture_cannot_be_rewritten_but_its_future_can(splits: dict[str, SplitReader]) -> None:
    past = MixChange(0, {"a": 1, "b": 1, "c": 1})
    with open_mixed(splits, [past], batch_size=6) as mixed:
        next(mixed)
        state = mixed.state_dict()
    later = MixChange(12, {"a": 0, "b": 0, "c": 1})
    with open_mixed(splits, [past, later], batch_size=6) as mixed:
        mixed.load_state_dict(state)
        assert by_source(numbers(next(mixed))) == {"a": 2, "b": 2, "c": 2}
        assert by_source(numbers(next(mixed))) == {"a": 0, "b": 0, "c": 6}
    with (
        open_mixed(splits, [MixChange(0, {"a": 2, "b": 1, "c": 1})], batch_size=6) as mixed,
        pytest.raises(ConfigError, match="begin differently"),
    ):
        mixed.load_state_dict(state)


def test_a_change_cannot_be_inserted_into_the_past(splits: dict[str, SplitReader]) -> None:
    """It would take effect when the run goes on, and earlier in a run that is replayed from its start."""
    past = MixChange(0, {"a": 1, "b": 1, "c": 1})
    with open_mixed(splits, [past], batch_size=6) as mixed:
        for _ in range(4):
            next(mixed)
        state = mixed.state_dict()
    with (
        open_mixed(splits, [past, MixChange(23, {"a": 0, "b": 0, "c": 1})], batch_size=6) as mixed,
        pytest.raises(ConfigError, match="from sample 23 on") as error,
    ):
        mixed.load_state_dict(state)
    assert error.value.hint == "let the change start at sample 24 or later"
    with open_mixed(splits, [past, MixChange(24, {"a": 0, "b": 0, "c": 1})], batch_size=6) as mixed:
        mixed.load_state_dict(state)
        assert by_source(numbers(next(mixed))) == {"a": 0, "b": 0, "c": 6}


def test_packed_sources_mix_by_rows(make_split: MakeSplit) -> None:
    schema = Schema((Field("ids", "tokens", "uint16"),))

    def packed(base: int) -> PackedLoader:
        records = [{"ids": np.full(n % 9, base, np.uint16)} for n in range(60)]
        split = make_split(schema, columns_from_records(schema, records), frame_bytes=200, shard_bytes=900)
        return PackedLoader(split, field="ids", separator=0, sequence_length=12, batch_size=1, **SMALL)

    sources = {"a": packed(1), "b": packed(2)}
    with MixedLoader(sources, changes=[MixChange(0, {"a": 1, "b": 3})], batch_size=4) as mixed:
        batch = next(mixed)
        tokens = batch["tokens_BL"]
        assert isinstance(tokens, torch.Tensor)
        assert tokens.shape == (4, 12)
        assert tokens.amax(dim=1).tolist() == [1, 2, 2, 2]


@given(
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any),
    batch_size=st.integers(1, 64),
    world_size=st.integers(1, 9),
    behind=st.integers(-30, 30),
)
def test_a_step_is_shared_out_completely(
    weights: list[int], batch_size: int, world_size: int, behind: int
) -> None:
    total = sum(weights)
    due = {str(n): (batch_size * world_size * weight, total) for n, weight in enumerate(weights)}
    if len(weights) > 1:
        due["0"] = (due["0"][0] - behind * total, total)
        due["1"] = (due["1"][0] + behind * total, total)
    counts = share_step(due, batch_size=batch_size, world_size=world_size)
    assert sum(counts.values()) == batch_size
    assert min(counts.values()) >= 0


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [MixChange(5, {"a": 1})],
        [MixChange(0, {"a": 1}), MixChange(0, {"a": 1})],
        [MixChange(0, {"b": 1})],
        [MixChange(0, {"a": 0})],
        [MixChange(0, {"a": -1})],
    ],
)
def test_changes_that_cannot_be_followed_are_refused(changes: list[MixChange]) -> None:
    with pytest.raises(ConfigError):
        MixedLoader({"a": None}, changes=changes, batch_size=1)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            Field("x", "tokens", "uint16"),
            Field("x", "tokens", "uint32"),
            "uint16 of any length and uint32 of",
        ),
        (Field("x", "tensor", "uint8"), Field("x", "tensor", "int64"), r"uint8 \[\] and int64 \[\]"),
        (Field("x", "tensor", "uint8", (2,)), Field("x", "bytes"), r"uint8 \[2\] and uint8 of any length"),
        (Field("x", "bytes"), Field("y", "bytes"), "field 'x' is uint8 of any length and not there"),
    ],
)
def test_sources_whose_columns_differ_are_refused(
    make_split: MakeSplit, first: Field, second: Field, said: str
) -> None:
    """Joined, the bytes of one would be read as the dtype of the other."""
    sources = {
        name: Loader(one_sample(make_split, field), batch_size=1)
        for name, field in zip("ab", (first, second), strict=True)
    }
    with pytest.raises(ConfigError, match=said):
        MixedLoader(sources, changes=[MixChange(0, {"a": 1, "b": 1})], batch_size=2)


def one_sample(make_split: MakeSplit, field: Field) -> SplitReader:
    value = b"ab" if field.kind == "bytes" else np.zeros(field.shape or (3,) * field.is_ragged, field.storage)
    schema = Schema((field,))
    return make_split(
        schema, columns_from_records(schema, [{field.name: value}]), frame_bytes=100, shard_bytes=900
    )


def finite(splits: dict[str, SplitReader], *, end: MixEnd, weights: dict[str, int], **options: Any) -> Any:
    sources = {name: Loader(split, batch_size=1, **SMALL) for name, split in splits.items()}
    return MixedLoader(sources, changes=[MixChange(0, weights)], end=end, **options)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 10])
def test_a_mixture_that_ends_with_its_first_source_repeats_nothing(
    splits: dict[str, SplitReader], batch_size: int, epochs: int
) -> None:
    weights = {name: 1 + number for number, name in enumerate(splits)}
    with finite(splits, end=MixEnd("first", epochs), weights=weights, batch_size=batch_size) as mixed:
        sizes = [len(numbers(batch)) for batch in mixed]
        delivered, length = mixed.delivered, {name: s.num_samples * epochs for name, s in splits.items()}
        assert set(sizes) == {batch_size}
        assert all(delivered[name] <= length[name] for name in splits)
        assert length[mixed.ended_by] - delivered[mixed.ended_by] < batch_size
        with pytest.raises(StopIteration):
            next(mixed)


@pytest.mark.parametrize("batch_size", [1, 7, 10])
def test_a_mixture_that_ends_with_its_last_source_has_read_all_of_them(
    splits: dict[str, SplitReader], batch_size: int
) -> None:
    weights = {name: 1 + number for number, name in enumerate(splits)}
    with finite(splits, end=MixEnd("last"), weights=weights, batch_size=batch_size) as mixed:
        seen = [number for batch in mixed for number in numbers(batch)]
        assert all(mixed.delivered[name] >= split.num_samples for name, split in splits.items())
        last = mixed.delivered[mixed.ended_by] - splits[mixed.ended_by].num_samples
        assert last < batch_size
    assert len(set(seen)) == sum(split.num_samples for split in splits.values())


def test_a_finite_mixture_ends_at_the_same_sample_when_resumed(splits: dict[str, SplitReader]) -> None:
    options: dict[str, Any] = {"weights": dict.fromkeys(splits, 1), "batch_size": 8}
    with finite(splits, end=MixEnd("first"), **options) as whole:
        wanted = [numbers(batch) for batch in whole]
    with finite(splits, end=MixEnd("first"), **options) as begun:
        before = [numbers(next(begun)) for _ in range(3)]
        state = begun.state_dict()
    with finite(splits, end=MixEnd("first"), **options) as resumed:
        resumed.load_state_dict(state)
        assert [*before, *(numbers(batch) for batch in resumed)] == wanted


def test_ends_that_cannot_be_are_refused(splits: dict[str, SplitReader]) -> None:
    short = finite(splits, end=MixEnd("first"), weights=dict.fromkeys(splits, 1), batch_size=9999)
    with short as mixed, pytest.raises(ConfigError, match="ends inside the first step"):
        next(mixed)
    only = dict.fromkeys(splits, 0) | {next(iter(splits)): 1}
    with finite(splits, end=MixEnd("last"), weights=only, batch_size=4) as mixed:
        for _ in mixed:
            pass
        assert mixed.ended_by in splits

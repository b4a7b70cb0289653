from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.loader.loader import Loader
from rsc.loader.pack import IGNORED_TARGET, PackedLoader
from rsc.loader.ragged import RaggedTensor
from rsc.store.schema import Field, Schema, columns_from_records
from rsc.store.splits import SplitReader
from tests.loader.conftest import MakeSplit

SEPARATOR = 256
SMALL: dict[str, Any] = {"window_bytes": 2048, "lanes": 2, "threads": 0}
LEGS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))  # world size, batch size, steps


@pytest.fixture
def texts(make_split: MakeSplit) -> SplitReader:
    """150 documents of 0 to 60 bytes, each its own run of letters."""
    rng = np.random.default_rng(0)
    records = [{"text": bytes([97 + n % 26]) * int(rng.integers(0, 61))} for n in range(150)]
    schema = Schema((Field("text", "string"),))
    return make_split(schema, columns_from_records(schema, records), frame_bytes=500, shard_bytes=3000)


def stream_of(split: SplitReader, *, epochs: int = 1) -> list[int]:
    """The tokens that packing must deliver, in order, spelled out the slow way."""
    stream: list[int] = []
    with Loader(split, batch_size=10, epochs=epochs, **SMALL) as loader:
        for batch in loader:
            column = batch["text"]
            assert isinstance(column, RaggedTensor)
            for document in column.to_bytes():
                stream += [SEPARATOR, *document]
    return stream


def rows_of(batch: dict[str, torch.Tensor], name: str = "tokens_BL") -> list[list[int]]:
    rows: list[list[int]] = batch[name].tolist()
    return rows


def test_rows_are_the_stream_cut_into_lengths(texts: SplitReader) -> None:
    stream = stream_of(texts)
    with PackedLoader(texts, sequence_length=32, batch_size=3, epochs=1, **SMALL) as loader:
        batches = list(loader)
    tokens = [token for batch in batches for row in rows_of(batch) for token in row]
    targets = [token for batch in batches for row in rows_of(batch, "targets_BL") for token in row]
    assert tokens[: len(stream)] == stream
    assert set(tokens[len(stream) :]) <= {SEPARATOR}
    assert targets[: len(stream)] == [*stream[1:], SEPARATOR]
    assert set(targets[len(stream) :]) <= {IGNORED_TARGET}
    assert all(batch[name].shape == (3, 32) for batch in batches for name in batch)


def test_document_ids_change_exactly_at_separators(texts: SplitReader) -> None:
    with PackedLoader(texts, sequence_length=48, batch_size=4, **SMALL) as loader:
        for _ in range(30):
            batch = next(loader)
            tokens, ids = batch["tokens_BL"], batch["document_ids_BL"]
            assert (ids[:, 0] == 0).all()
            assert torch.equal(ids.diff(dim=1), (tokens[:, 1:] == SEPARATOR).long())
            for row, row_ids in zip(tokens, ids, strict=True):
                for document in row_ids.unique():
                    letters = set(row[row_ids == document].tolist()) - {SEPARATOR}
                    assert len(letters) <= 1, "two documents share an id"


def test_resume_at_every_step_gives_the_same_batches(texts: SplitReader) -> None:
    options: dict[str, Any] = {"sequence_length": 40, "batch_size": 2, "rank": 1, "world_size": 3, **SMALL}
    with PackedLoader(texts, **options) as loader:
        states, batches = [], []
        for _ in range(50):
            states.append(json.loads(json.dumps(loader.state_dict())))
            batches.append(next(loader))
    assert len(json.dumps(states[-1])) < 1024
    with PackedLoader(texts, **options) as resumed:
        for start, state in enumerate(states):
            resumed.load_state_dict(state)
            for expected in batches[start : start + 2]:
                found = next(resumed)
                assert all(torch.equal(found[name], expected[name]) for name in expected)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(legs=st.lists(LEGS, min_size=1, max_size=4))
def test_world_sizes_may_change_at_any_step(texts: SplitReader, legs: list[tuple[int, int, int]]) -> None:
    """Whatever the ranks and kills in between: the rows of one process, in its order."""
    with PackedLoader(texts, sequence_length=16, batch_size=1, epochs=2, **SMALL) as loader:
        alone = [row for batch in loader for row in rows_of(batch)]
    seen: list[list[int]] = []
    state: dict[str, Any] | None = None
    for world_size, batch_size, steps in [*legs, (1, 1, 10**6)]:
        ranks = []
        for rank in range(world_size):
            with PackedLoader(
                texts,
                sequence_length=16,
                batch_size=batch_size,
                rank=rank,
                world_size=world_size,
                epochs=2,
                **SMALL,
            ) as loader:
                if state is not None:
                    loader.load_state_dict(state)
                ranks.append(
                    [row for _, batch in zip(range(steps), loader, strict=False) for row in rows_of(batch)]
                )
                after = loader.state_dict()
        seen += [row for together in zip(*ranks, strict=True) for row in together]
        state = after
    assert seen[: len(alone)] == alone


def test_token_fields_keep_their_numbers(make_split: MakeSplit) -> None:
    schema = Schema((Field("ids", "tokens", "uint16"),))
    records = [{"ids": np.arange(n, dtype=np.uint16) + 1000} for n in range(40)]
    split = make_split(schema, columns_from_records(schema, records), frame_bytes=300, shard_bytes=2000)
    with PackedLoader(
        split, field="ids", separator=7, sequence_length=10, batch_size=2, epochs=1, **SMALL
    ) as loader:
        tokens = torch.cat([batch["tokens_BL"].flatten() for batch in loader])
    assert int((tokens >= 1000).sum()) == sum(range(40))
    assert set(tokens.tolist()) <= {7, *range(1000, 1039)}


def test_fixed_fields_and_other_packings_are_refused(texts: SplitReader, numbers: SplitReader) -> None:
    with pytest.raises(ConfigError, match="number"):
        PackedLoader(numbers, field="number", sequence_length=8, batch_size=1)
    with (
        PackedLoader(texts, sequence_length=8, batch_size=1, **SMALL) as loader,
        PackedLoader(texts, sequence_length=9, batch_size=1, **SMALL) as other,
        pytest.raises(ConfigError, match="sequence_length"),
    ):
        other.load_state_dict(loader.state_dict())

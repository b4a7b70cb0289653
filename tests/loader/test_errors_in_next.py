"""Storage that fails at any read, and Ctrl-C, also while a loader still gets over the last one: it is asked
again and goes on as if nothing were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError, ResourceError
from rsc.loader.loader import Loader
from rsc.loader.mix import MixChange, MixedLoader
from rsc.loader.pack import PackedLoader
from rsc.loader.ragged import RaggedTensor
from rsc.loader.stream import WindowStream
from rsc.store.bulk.local import LocalReader, LocalStore
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MIXED, MakeSplit, mixed_columns

STEPS = 12
MOST_FAULTS = 6
ORDER: dict[str, Any] = {"window_bytes": 4096, "lanes": 4, "seed": 3}
ERRORS = st.sampled_from([ResourceError("the line was cut"), KeyboardInterrupt()])
# So many reads still work, and then comes this. A loader that goes back to where it was counts as reads do.
TWICE: Any = [
    [(reads, KeyboardInterrupt()), (more, KeyboardInterrupt())] for reads in (9, 30) for more in range(8)
]
FAULTS = st.lists(st.tuples(st.integers(0, 40), ERRORS), max_size=MOST_FAULTS)


class FailingStore:
    """Raises the next of `faults` after so many reads, and moves of a stream of windows."""

    def __init__(self, root: Path) -> None:
        self.local = LocalStore(root)
        self.faults: list[tuple[int, BaseException]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def count(self) -> None:
        if self.faults:
            left, error = self.faults.pop(0)
            if not left:
                raise error
            self.faults.insert(0, (left - 1, error))

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        store = self

        class Failing(LocalReader):
            def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
                store.count()
                super().read_into(offset, buffer)

        return Failing(self.local.root / path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FailingStore:
    store, jump = FailingStore(tmp_path), WindowStream.jump

    def counted(stream: WindowStream) -> None:
        store.count()
        jump(stream)
        store.count()

    monkeypatch.setattr(WindowStream, "jump", counted)
    return store


@pytest.fixture
def samples(make_split: MakeSplit, store: FailingStore) -> SplitReader:
    return make_split(MIXED, mixed_columns(300), frame_bytes=1024, shard_bytes=5000, store=store)


@pytest.fixture
def texts(make_split: MakeSplit, store: FailingStore) -> SplitReader:
    schema = Schema((Field("ids", "tokens", "uint16"),))
    records = [{"ids": np.full(n % 23, n, np.uint16)} for n in range(200)]
    columns = columns_from_records(schema, records)
    return make_split(schema, columns, frame_bytes=200, shard_bytes=900, store=store)


def open_packed(split: SplitReader, *, threads: int, seed: int = 3) -> PackedLoader:
    options = ORDER | {"seed": seed}
    return PackedLoader(
        split, field="ids", separator=999, sequence_length=24, batch_size=4, threads=threads, **options
    )


def open_mixed(split: SplitReader, *, threads: int) -> MixedLoader:
    sources = {"a": open_packed(split, threads=threads), "b": open_packed(split, threads=threads, seed=4)}
    return MixedLoader(sources, changes=[MixChange(0, {"a": 1, "b": 2})], batch_size=6)


def plain(batch: Any) -> dict[str, Any]:
    return {
        name: column.to_bytes() if isinstance(column, RaggedTensor) else column.tolist()
        for name, column in batch.items()
        if isinstance(column, torch.Tensor) or column.values.dtype == torch.uint8
    }


def take_all(loader: Any) -> Iterator[dict[str, Any]]:
    """What a caller has who asks again after each error."""
    for _ in range(STEPS):
        for _ in range(MOST_FAULTS + 1):
            with suppress(ResourceError, KeyboardInterrupt):
                yield plain(next(loader))
                break


def check(loaders: tuple[Any, Any], *, store: FailingStore, faults: list[tuple[int, BaseException]]) -> None:
    """The second loader meets the faults, the first does not."""
    with loaders[0] as loader:
        expected = list(take_all(loader))
        state = loader.state_dict()
    with loaders[1] as loader:
        store.faults = list(faults)
        assert list(take_all(loader)) == expected
        store.faults = []
        assert loader.state_dict() == state


FIXTURES = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FIXTURES
@given(faults=FAULTS, threads=st.sampled_from([0, 1, 2]))
def test_samples(
    samples: SplitReader, store: FailingStore, faults: list[tuple[int, BaseException]], threads: int
) -> None:
    loaders = [Loader(samples, batch_size=30, threads=threads, **ORDER) for _ in range(2)]
    check((loaders[0], loaders[1]), store=store, faults=faults)


@FIXTURES
@example(faults=[(14, ResourceError("")), (0, ResourceError(""))], threads=0)
@given(faults=FAULTS, threads=st.sampled_from([0, 1, 2]))
def test_packed_rows(
    texts: SplitReader, store: FailingStore, faults: list[tuple[int, BaseException]], threads: int
) -> None:
    check(
        (open_packed(texts, threads=threads), open_packed(texts, threads=threads)), store=store, faults=faults
    )


@FIXTURES
@given(faults=FAULTS, threads=st.sampled_from([0, 1]))
def test_mixtures(
    texts: SplitReader, store: FailingStore, faults: list[tuple[int, BaseException]], threads: int
) -> None:
    check(
        (open_mixed(texts, threads=threads), open_mixed(texts, threads=threads)), store=store, faults=faults
    )


@pytest.mark.parametrize("kind", ["samples", "packed", "mixed"])
def test_a_closed_loader_is_refused(samples: SplitReader, texts: SplitReader, kind: str) -> None:
    """It would open shards again that nobody closes."""
    loader: Any = Loader(samples, batch_size=3, **ORDER)
    if kind != "samples":
        loader.close()
        loader = open_packed(texts, threads=0) if kind == "packed" else open_mixed(texts, threads=0)
    next(loader)
    loader.close()
    with pytest.raises(ConfigError, match="closed"):
        next(loader)


@pytest.mark.parametrize("kind", ["samples", "packed", "mixed"])
@pytest.mark.parametrize("faults", TWICE)
def test_a_second_interrupt_loses_nothing(
    samples: SplitReader, texts: SplitReader, store: FailingStore, kind: str, faults: Any
) -> None:
    def open_one() -> Any:
        if kind == "samples":
            return Loader(samples, batch_size=30, **ORDER)
        return open_packed(texts, threads=0) if kind == "packed" else open_mixed(texts, threads=0)

    check((open_one(), open_one()), store=store, faults=faults)


def test_a_window_that_memory_does_not_hold_is_refused_before_it_is_read(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stretch of long samples among short ones; where there is room later, it is delivered all the same."""
    schema = Schema((Field("ids", "tokens", "uint16"),))
    records = [{"ids": np.full(9000 if 100 <= n < 110 else 100, n, np.uint16)} for n in range(200)]
    split = make_split(schema, columns_from_records(schema, records), frame_bytes=2000, shard_bytes=10**6)
    options: dict[str, Any] = {"batch_size": 4, "window_bytes": 20_000, "lanes": 1, "seed": 2}
    with Loader(split, epochs=1, **options) as loader:
        expected = [plain(batch) for batch in loader]
    monkeypatch.setattr("rsc.loader.memory.available_bytes", lambda: 30_000)
    with Loader(split, epochs=1, **options) as loader:
        found = []
        with pytest.raises(ResourceError, match=r"needs .* of memory at once, and 29\.3 KiB"):
            found.extend(plain(batch) for batch in loader)
        assert 0 < len(found) < len(expected)
        monkeypatch.undo()
        assert found + [plain(batch) for batch in loader] == expected

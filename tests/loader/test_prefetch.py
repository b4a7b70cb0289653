from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rsc.errors import ResourceError
from rsc.loader import prefetch
from rsc.loader.loader import Loader
from rsc.loader.prefetch import ReadAhead, frames_of
from rsc.store.bulk.local import LocalReader, LocalStore
from rsc.store.cache.node_cache import NodeCache
from rsc.store.splits import SplitReader
from tests.loader.conftest import MIXED, MakeSplit, mixed_columns

SMALL: dict[str, Any] = {"window_bytes": 4096, "lanes": 4, "epochs": 1}


class CountingStore:
    """Counts the bytes that cross from the bulk tier, which a `LocalStore` would map instead."""

    def __init__(self, root: Path) -> None:
        self.local = LocalStore(root)
        self.crossed = 0
        self.failing = 0  # how many times a shard cannot be opened
        self.lock = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        if path.endswith(".rsc") and self.failing:
            self.failing -= 1
            raise ResourceError("the line was cut")
        store = self

        class Counting(LocalReader):
            def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
                super().read_into(offset, buffer)
                with store.lock:
                    store.crossed += len(buffer)

        return Counting(self.local.root / path)


@pytest.fixture
def plain(make_split: MakeSplit, tmp_path: Path) -> SplitReader:
    store = CountingStore(tmp_path)
    return make_split(MIXED, mixed_columns(700), frame_bytes=1024, shard_bytes=10_000, store=store)


def through_cache(split: SplitReader, folder: Path) -> SplitReader:
    split.place = replace(split.place, cache=NodeCache(folder, limit_bytes=1 << 30))
    return split


def numbers_in(loader: Loader) -> list[int]:
    return [int(number) for batch in loader for number in torch.as_tensor(batch["number"])]


def test_each_byte_crosses_once_and_the_order_is_the_same(plain: SplitReader, tmp_path: Path) -> None:
    with Loader(plain, batch_size=50, **SMALL) as loader:
        expected = numbers_in(loader)
    split = through_cache(plain, tmp_path / "cache")
    store = split.place.store
    assert isinstance(store, CountingStore)
    store.crossed = 0
    for _ in range(2):
        with Loader(split, batch_size=50, threads=2, **SMALL) as loader:
            assert numbers_in(loader) == expected
    assert store.crossed < 2.1 * split.size_bytes, (
        "shards once; so small ones a second time as the last 64 KiB, which hold the tail"
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    world_size=2, rank=0, start=573, lanes=3
)  # a step ends between the rank's last row of a window and its end
@example(world_size=5, rank=0, start=0, lanes=1)  # the last window has no row of the rank
@given(
    world_size=st.integers(1, 6), rank=st.integers(0, 5), start=st.integers(0, 699), lanes=st.integers(1, 5)
)
def test_the_list_of_coming_reads_is_what_is_read(
    plain: SplitReader, tmp_path: Path, world_size: int, rank: int, start: int, lanes: int
) -> None:
    """From any position, for any rank: at the end of the epoch nothing that was listed is left over."""
    split = through_cache(plain, tmp_path / "cache")
    options = SMALL | {"lanes": lanes}
    with Loader(split, batch_size=20, rank=rank % world_size, world_size=world_size, **options) as loader:
        loader.load_state_dict(loader.state_dict() | {"position": start})
        list(loader)
        follower = loader._ahead._follower
        assert follower is not None
        follower.wait()
        assert not follower._future
        assert not follower._behind


def test_a_line_that_is_cut_for_a_while_does_not_end_the_list(
    plain: SplitReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was nothing read ahead for the rest of the run."""
    monkeypatch.setattr(prefetch, "_PAUSE_S", 0.001)
    store = plain.place.store
    assert isinstance(store, CountingStore)
    with Loader(plain, batch_size=20, **SMALL) as loader:
        stream = loader._stream
        expected = len(list(frames_of(stream.coming(0, split=plain, end=700))))
        split = through_cache(plain, tmp_path / "cache")
        store.failing = 5
        reads = ReadAhead(split, lanes=4, connections=2)
        reads.begin(lambda scout: frames_of(stream.coming(0, split=scout, end=700)))
        assert reads._follower is not None
        reads._follower.wait()
        assert not store.failing
        assert len(reads._follower._future) == expected > 0
        reads.stop()

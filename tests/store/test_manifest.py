from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import IntegrityError
from rsc.store.format.container import ContainerRecord
from rsc.store.format.manifest import FAN_OUT, ManifestReader, ManifestTotals, ManifestWriter, level_sizes
from tests.store.memory import MemoryFile


def build(samples: list[int]) -> tuple[MemoryFile, ManifestTotals]:
    file = MemoryFile()
    writer = ManifestWriter(file)
    for number, num_samples in enumerate(samples):
        digest = number.to_bytes(32, "big")
        writer.add(
            ContainerRecord(digest=digest, size_bytes=100 + number, num_frames=2, num_samples=num_samples)
        )
    return file, writer.finish()


@pytest.mark.parametrize("count", [0, 1, 2, FAN_OUT - 1, FAN_OUT, FAN_OUT + 1, 3 * FAN_OUT, FAN_OUT**2 + 1])
def test_every_shard_is_found_by_number_and_by_its_samples(count: int) -> None:
    samples = [number % 4 for number in range(count)]  # some shards are empty
    file, totals = build(samples)
    assert file.size_bytes == sum(level_sizes(count)) * 64
    reader = ManifestReader(file, totals=totals)
    first = np.cumsum([0, *samples])
    for shard in {0, 1, count // 2, count - 2, count - 1} & set(range(count)):
        record = reader.record(shard)
        assert (record.shard, record.size_bytes, record.num_samples) == (shard, 100 + shard, samples[shard])
        assert (record.first_sample, record.first_frame) == (int(first[shard]), 2 * shard)
        assert record.digest == shard.to_bytes(32, "big")
        for sample in range(record.num_samples):
            assert reader.find_sample(record.first_sample + sample) == record
    for number in (-1, count):
        with pytest.raises(IndexError):
            reader.record(number)
    with pytest.raises(IndexError):
        reader.find_sample(totals.num_samples)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=600), st.data())
def test_find_sample_agrees_with_a_cumulative_sum(samples: list[int], data: st.DataObject) -> None:
    file, totals = build(samples)
    reader = ManifestReader(file, totals=totals, cached_pages=1)
    if totals.num_samples:
        sample = data.draw(st.integers(0, totals.num_samples - 1))
        assert reader.find_sample(sample).shard == int(
            np.searchsorted(np.cumsum(samples), sample, side="right")
        )


def test_a_changed_page_is_refused_when_it_is_touched() -> None:
    file, totals = build([1] * (FAN_OUT + 5))
    file.data[0] ^= 1
    reader = ManifestReader(file, totals=totals)
    assert reader.record(FAN_OUT).shard == FAN_OUT
    with pytest.raises(IntegrityError, match="page 0 of level 0"):
        reader.record(3)


@pytest.mark.parametrize("position", [0, 40, FAN_OUT * 64 + 1, (FAN_OUT + 5) * 64 + 33, -1])
def test_every_changed_byte_is_found(position: int) -> None:
    file, totals = build([1] * (FAN_OUT + 5))
    file.data[position] ^= 1
    with pytest.raises(IntegrityError):
        list(ManifestReader(file, totals=totals).records())


@pytest.mark.parametrize(("change", "outcome"), [(-1, "truncated"), (1, "trailing")])
def test_another_length_is_refused(change: int, outcome: str) -> None:
    file, totals = build([1] * 5)
    file.data = file.data[:change] if change < 0 else file.data + b"x"
    with pytest.raises(IntegrityError) as caught:
        ManifestReader(file, totals=totals)
    assert caught.value.facts["outcome"] == outcome


def test_another_root_is_refused() -> None:
    file, _ = build([1] * 5)
    _, other = build([1, 1, 1, 2, 0])
    with pytest.raises(IntegrityError):
        ManifestReader(file, totals=other)


def test_four_pages_reach_four_billion_shards() -> None:
    assert level_sizes(4 * 10**9) == [4_000_000_000, 15_625_000, 61_036, 239]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from obstore.store import MemoryStore

from rsc.errors import ConfigError, DataError, IntegrityError
from rsc.keys.envelope import Envelope, data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.secret import SecretKey
from rsc.store.bulk.locations import Location
from rsc.store.bulk.objects import ObjectStore
from rsc.store.dataset import Dataset, DatasetRef, DatasetWriter, list_datasets, list_versions
from rsc.store.format.columns import Columns, columns_from_records, concatenate_columns, slice_columns
from rsc.store.format.schema import Field, Schema
from tests.conftest import FakeClock
from tests.store.conftest import SCHEMA, assert_equal, make_columns

Enveloped = tuple[Envelope, SecretKey]
FINDINGS = Schema((Field("record", "tensor", "uint64"), Field("type", "string")))


@pytest.fixture(params=["folder", "object store"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return tmp_path / "data" if request.param == "folder" else ObjectStore(MemoryStore())


def start(
    location: Location, enveloped: Enveloped, clock: FakeClock, *, frame_bytes: int = 400
) -> DatasetWriter:
    return DatasetWriter.create(
        location,
        name="posts",
        schemas={"train": SCHEMA, "findings": FINDINGS},
        key=enveloped[1],
        envelope=enveloped[0],
        clock=clock,
        frame_bytes=frame_bytes,
        shard_bytes=2000,
    )


def write(location: Location, enveloped: Enveloped, clock: FakeClock, columns: Columns) -> DatasetRef:
    with start(location, enveloped, clock) as writer:
        writer.append("train", columns)
        return writer.commit(policy=b"p", report=b"r", facts={"source": "test"})


def read(dataset: Dataset, key: SecretKey) -> Columns:
    return concatenate_columns(list(dataset.split("train", key=key).iterate()))


def test_samples_come_back_in_order(location: Location, enveloped: Enveloped, clock: FakeClock) -> None:
    columns = make_columns(500)
    ref = write(location, enveloped, clock, columns)
    dataset = Dataset.open(location, name="posts")
    assert (dataset.version, dataset.root_hash, dataset.version_id) == (1, ref.root_hash, ref.version_id)
    assert dataset.created == clock.now()
    assert dataset.facts == {"source": "test"}
    assert dataset.splits["train"].schema == SCHEMA
    assert dataset.splits["train"].num_shards > 3
    assert dataset.splits["findings"].num_samples == 0
    assert_equal(read(dataset, enveloped[1]), columns)


@pytest.mark.parametrize("step", [1, 7, 120])
def test_the_pieces_of_appending_do_not_matter(
    step: int, tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    columns = make_columns(200)
    writer = start(tmp_path, enveloped, clock)
    for first in range(0, 200, step):
        piece = slice_columns(columns, first, min(200, first + step))
        piece["image"] = np.array(piece["image"])
        writer.append("train", piece)
        piece["image"][:] = 0  # the caller may use its memory again
    writer.commit(policy=b"", report=b"", facts={})
    reader = Dataset.open(tmp_path, name="posts").split("train", key=enveloped[1])
    assert_equal(concatenate_columns(list(reader.iterate())), columns)
    frames = [reader.open_shard(shard).frames["plain_bytes"].max() for shard in range(reader.num_shards)]
    assert max(frames) <= 400 + 6 * 64


def test_locate_agrees_with_the_frames(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    write(tmp_path, enveloped, clock, make_columns(300))
    reader = Dataset.open(tmp_path, name="posts").split("train", key=enveloped[1])
    seen = 0
    for shard in range(reader.num_shards):
        record = reader.shard_record(shard)
        assert record.first_sample == seen
        assert record.num_samples == reader.open_shard(shard).num_samples
        assert reader.locate(seen + record.num_samples - 1).sample_in_shard == record.num_samples - 1
        seen += record.num_samples
    assert seen == 300


def test_a_sample_larger_than_a_shard_is_kept_whole(
    tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    schema = Schema((Field("body", "bytes"),))
    columns = columns_from_records(
        schema, [{"body": b"a"}, {"body": b"b" * 9000}, {"body": b""}, {"body": b"c"}]
    )
    writer = DatasetWriter.create(
        tmp_path,
        name="posts",
        schemas={"train": schema},
        key=enveloped[1],
        envelope=enveloped[0],
        clock=clock,
        frame_bytes=100,
        shard_bytes=500,
    )
    writer.append("train", columns)
    writer.commit(policy=b"", report=b"", facts={})
    assert_equal(read(Dataset.open(tmp_path, name="posts"), enveloped[1]), columns)


def test_versions_count_up_and_old_ones_stay(
    location: Location, enveloped: Enveloped, clock: FakeClock
) -> None:
    for count in (3, 5):
        write(location, enveloped, clock, make_columns(count))
    assert list_versions(location, "posts") == [1, 2]
    assert list_datasets(location) == [("posts", [1, 2])]
    assert Dataset.open(location, name="posts").splits["train"].num_samples == 5
    assert Dataset.open(location, name="posts", version=1).splits["train"].num_samples == 3
    for name, version in (("posts", 3), ("nobody", None)):
        with pytest.raises(ConfigError, match="no data set"):
            Dataset.open(location, name=name, version=version)


def test_an_aborted_version_leaves_nothing(
    location: Location, enveloped: Enveloped, clock: FakeClock
) -> None:
    with start(location, enveloped, clock) as writer:
        writer.append("train", make_columns(300))
    assert list_datasets(location) == []
    with pytest.raises(DataError), start(location, enveloped, clock) as writer:
        writer.append("train", {"image": np.zeros(3)})
    store = location if isinstance(location, ObjectStore) else None
    left = list(store.walk("")) if store else [p for p in Path(str(location)).rglob("*") if p.is_file()]
    assert left == []


def test_a_shard_in_another_place_does_not_open(
    tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    """Swap two shards, and bring one from another version: `header`, although key and bytes are right."""
    for _ in range(2):
        write(tmp_path, enveloped, clock, make_columns(300))
    folder = tmp_path / "posts" / "v0001" / "train"
    one, two = (folder / f"00000000{n}.rsc" for n in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    for content in (second, (tmp_path / "posts" / "v0002" / "train" / "000000000.rsc").read_bytes()):
        one.write_bytes(content)
        reader = Dataset.open(tmp_path, name="posts", version=1).split("train", key=enveloped[1])
        with pytest.raises(IntegrityError) as caught:
            reader.open_shard(0)
        assert (caught.value.facts["outcome"], caught.value.facts["shard"]) == ("header", 0)
    one.write_bytes(first)
    two.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        Dataset.open(tmp_path, name="posts", version=1).split("train", key=enveloped[1]).open_shard(1)


def test_a_wrong_key_is_no_key(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    write(tmp_path, enveloped, clock, make_columns(10))
    with SecretKey.generate() as other, pytest.raises(IntegrityError) as caught:
        read(Dataset.open(tmp_path, name="posts"), other)
    assert caught.value.facts["outcome"] == "no_key"


def test_verify_finds_every_changed_file(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    write(tmp_path, enveloped, clock, make_columns(300))
    dataset = Dataset.open(tmp_path, name="posts")
    report = dataset.verify(key=enveloped[1])
    assert report.is_good
    assert report.num_shards == dataset.splits["train"].num_shards
    assert report.frames_authenticated == dataset.splits["train"].num_frames
    folder = tmp_path / "posts" / "v0001"
    shard, manifest = folder / "train" / "000000001.rsc", folder / "findings.manifest"
    content = bytearray(shard.read_bytes())
    content[300] ^= 1
    shard.write_bytes(content)
    (folder / "train" / "000000002.rsc").unlink()
    manifest.write_bytes(b"x")
    (folder / "review" / "report.json").write_bytes(b"another")
    found = {
        problem.path.removeprefix("posts/v0001/"): problem.outcome for problem in dataset.verify().problems
    }
    assert found == {
        "train/000000001.rsc": "frame",
        "train/000000002.rsc": "truncated",
        "findings.manifest": "trailing",
        "review/report.json": "header",
    }


def test_review_files(location: Location, enveloped: Enveloped, clock: FakeClock) -> None:
    write(location, enveloped, clock, make_columns(2))
    dataset = Dataset.open(location, name="posts")
    dataset.write_review("approvals/ada.json", b"yes")
    assert dataset.list_review() == ["approvals/ada.json", "policy.toml", "report.json"]
    assert dataset.read_review("approvals/ada.json") == b"yes"
    assert dataset.read_review("decisions.json") is None
    for name in ("../key.json", "/etc/passwd", "a/b/c", ".x", ""):
        with pytest.raises(ConfigError):
            dataset.write_review(name, b"")


def test_the_envelope_travels_with_the_data(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    write(tmp_path, enveloped, clock, make_columns(2))
    dataset = Dataset.open(tmp_path, name="posts")
    provider = LocalKeyProvider(tmp_path / "keys")
    with open_envelope(provider, dataset.envelope(), context=data_key_context("posts")) as key:
        assert key.matches(enveloped[1])
        assert len(read(dataset, key)["label"]) == 2


def test_delete_removes_one_version(location: Location, enveloped: Enveloped, clock: FakeClock) -> None:
    for count in (3, 5):
        write(location, enveloped, clock, make_columns(count))
    Dataset.open(location, name="posts", version=1).delete()
    assert list_versions(location, "posts") == [2]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format": "rsc-dataset-1"}'])
def test_a_broken_root_is_header(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "posts" / "v0001").mkdir(parents=True)
    (tmp_path / "posts" / "v0001" / "root.json").write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        Dataset.open(tmp_path, name="posts")
    assert caught.value.facts["outcome"] == "header"

"""Shards that other tools write: WebDataset tars, MDS, Parquet and Hugging Face folders."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import detect, open_source
from rsc.ingest.readers.tables.value_types import MISSING

from .bringing import SAFE, bring_in, stored
from .conftest import read_all
from .test_media import picture

PLAIN = ImportOptions()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(count: int) -> list[tuple[str, bytes]]:
    return [
        (f"{n:06d}.{ending}", data)
        for n in range(count)
        for ending, data in (
            ("png", picture((n, 0, 0))),
            ("cls", str(n % 3).encode()),
            ("txt", f"text {n}".encode()),
        )
    ]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_webdataset(tmp_path: Path, ending: str) -> None:
    path = tar(tmp_path / f"shard.{ending}", samples(20))
    assert detect(path) == "webdataset"
    source = open_source(path, options=PLAIN)
    assert [item.name for item in source.fields()] == ["image", "label", "text", "key"]
    for part_bytes in (1, 500, 1 << 20):
        rows, bad = read_all(source, part_bytes=part_bytes)
        assert not bad
        assert [row["#"] for row in rows] == list(range(20))
        assert rows[7] == {
            "#": 7,
            "image": picture((7, 0, 0)),
            "label": "1",
            "text": "text 7",
            "key": "000007",
        }


def test_webdataset_shards_in_a_folder_and_a_sample_that_lacks_a_file(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    tar(folder / "b.tar", [("x.png", picture((1, 1, 1))), ("x.txt", b"no class")])
    tar(folder / "a.tar", samples(5))
    result = bring_in(workspace, folder, policy=SAFE, holdout=0)
    assert result.splits == {"train": 5}
    assert result.bad == {"no file for field 'label'": 1}
    assert stored(workspace, "quarantine")[0]["place"] == "sample x"


def test_a_damaged_tar(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", samples(50))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a whole tar"):
        read_all(open_source(path, options=PLAIN))


COLUMNS = {
    "text": ("str", None), "id": ("int", 8), "score": ("float32", 4), "tokens": ("ndarray:uint16:3", 6),
    "ragged": ("ndarray:int32", None), "image": ("png", None), "extra": ("json", None),
    "raw": ("bytes", None),
}  # fmt: skip


def mds_values(n: int) -> dict[str, bytes]:
    """A sample in the bytes of MDS; written from the description of the format, without our reader."""
    ragged = np.arange(n + 1, dtype=np.int32)
    return {
        "text": f"text {n} caf\u00e9".encode(),
        "id": np.int64(n).tobytes(),
        "score": np.float32(n / 2).tobytes(),
        "tokens": np.array([n, n + 1, n + 2], np.uint16).tobytes(),
        "ragged": bytes([1 << 2 | 0, n + 1]) + ragged.tobytes(),
        "image": picture((n, 0, 0)),
        "extra": json.dumps({"n": n}).encode(),
        "raw": bytes([n]) * n,
    }


def mds_shard(rows: list[dict[str, bytes]], columns: dict[str, tuple[str, int | None]]) -> bytes:
    packed = []
    for row in rows:
        sizes = [len(row[name]) for name, (_, size) in columns.items() if size is None]
        packed.append(np.array(sizes, np.uint32).tobytes() + b"".join(row[name] for name in columns))
    config = b'{"columns": "whatever"}'
    start = 4 * (len(rows) + 2) + len(config)
    offsets = start + np.cumsum([0, *map(len, packed)])
    return np.uint32(len(rows)).tobytes() + offsets.astype(np.uint32).tobytes() + config + b"".join(packed)


def mds(
    root: Path,
    counts: list[int],
    *,
    columns: dict[str, tuple[str, int | None]] = COLUMNS,
    packed: bool = False,
) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    shards, n = [], 0
    for index, count in enumerate(counts):
        data = mds_shard([mds_values(n + i) for i in range(count)], columns)
        n += count
        name = f"shard.{index:05d}.mds"
        record: dict[str, Any] = {
            "column_names": list(columns), "column_encodings": [e for e, _ in columns.values()],
            "column_sizes": [s for _, s in columns.values()], "compression": "zstd:3" if packed else None,
            "format": "mds", "hashes": [], "raw_data": {"basename": name, "bytes": len(data), "hashes": {}},
            "samples": count, "size_limit": 1 << 26, "version": 2, "zip_data": None,
        }  # fmt: skip
        if packed:
            data, name = zstandard.compress(data), f"{name}.zstd"
            record["zip_data"] = {"basename": name, "bytes": len(data), "hashes": {}}
        (root / name).write_bytes(data)
        shards.append(record)
    (root / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_mds(tmp_path: Path, packed: bool) -> None:
    root = mds(tmp_path / "mds", [3, 4], packed=packed)
    assert detect(root) == "mds"
    source = open_source(root, options=PLAIN)
    kinds = {item.name: (item.kind, item.dtype, item.shape) for item in source.fields()}
    assert kinds["tokens"] == ("tensor", "uint16", (3,))
    assert kinds["ragged"] == ("tokens", "int32", ())
    assert source.media() == {"image": "image"}
    rows, bad = read_all(source)
    assert not bad
    assert [row["#"] for row in rows] == list(range(7))
    row = rows[5]
    assert (row["text"], row["id"], row["score"], row["raw"]) == ("text 5 caf\u00e9", 5, 2.5, b"\5" * 5)
    assert row["tokens"].tolist() == [5, 6, 7]
    assert row["ragged"].tolist() == [0, 1, 2, 3, 4, 5]
    assert row["extra"] == '{"n": 5}'


def test_mds_with_split_folders(workspace: Workspace, tmp_path: Path) -> None:
    mds(tmp_path / "mds" / "train", [3])
    mds(tmp_path / "mds" / "val", [2])
    result = bring_in(workspace, tmp_path / "mds", policy=SAFE, image_size=2)
    assert result.splits == {"train": 3, "validation": 2}
    assert np.array(stored(workspace, "train")[2]["image"]).shape == (2, 2, 3)


def test_mds_pickles_are_refused(tmp_path: Path) -> None:
    root = mds(tmp_path / "mds", [1], columns={"text": ("str", None), "raw": ("pkl", None)})
    with pytest.raises(ConfigError, match="pickles can run code"):
        open_source(root, options=PLAIN).fields()
    assert read_all(open_source(root, options=ImportOptions(fields=("text",))))[0][0]["text"].startswith(
        "text 0"
    )


def table(count: int) -> Any:
    arrow = pytest.importorskip("pyarrow")
    return arrow.table(
        {
            "text": arrow.array([f"text {n}" if n % 5 else None for n in range(count)]),
            "id": arrow.array(range(count), arrow.int32()),
            "score": arrow.array([n / 2 if n % 3 else None for n in range(count)], arrow.float64()),
            "flag": arrow.array([n % 2 == 0 for n in range(count)]),
            "tokens": arrow.array([list(range(n % 4)) for n in range(count)], arrow.list_(arrow.uint16())),
            "vector": arrow.array([[n, n + 1] for n in range(count)], arrow.list_(arrow.float32(), 2)),
            "image": arrow.array([{"bytes": picture((n % 9, 0, 0)), "path": None} for n in range(count)]),
            "more": arrow.array([{"a": n} for n in range(count)]),
        }
    )


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(table(50), path, row_group_size=7)
    assert detect(path) == "parquet"
    source = open_source(path, options=PLAIN)
    kinds = {item.name: (item.kind, item.dtype, item.shape) for item in source.fields()}
    assert kinds == {
        "text": ("string", "uint8", ()), "id": ("tensor", "int32", ()), "score": ("tensor", "float64", ()),
        "flag": ("tensor", "uint8", ()), "tokens": ("tokens", "uint16", ()),
        "vector": ("tensor", "float32", (2,)), "image": ("bytes", "uint8", ()),
        "more": ("string", "uint8", ()),
    }  # fmt: skip
    for part_bytes in (1, 1 << 20):
        rows, bad = read_all(source, part_bytes=part_bytes)
        assert not bad
        assert [row["#"] for row in rows] == list(range(50))
        assert (rows[8]["text"], rows[5]["text"], rows[8]["flag"]) == ("text 8", "", 1)
        assert np.isnan(rows[3]["score"])
        assert rows[7]["vector"].tolist() == [7, 8]
        assert rows[7]["tokens"].tolist() == [0, 1, 2]
        assert rows[7]["more"] == '{"a": 7}'


def test_parquet_files_named_by_split(workspace: Workspace, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    parquet.write_table(table(8), folder / "train-00000-of-00001.parquet")
    parquet.write_table(table(4), folder / "test-00000-of-00001.parquet")
    result = bring_in(workspace, tmp_path / "set", policy=SAFE)
    assert result.splits == {"train": 8, "test": 4}
    assert stored(workspace, "test")[3]["text"] == "text 3"


def test_parquet_nulls_in_whole_numbers_are_marked(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["a", "b"], "n": arrow.array([1, None], arrow.int64())}), path)
    rows, bad = read_all(open_source(path, options=PLAIN))
    assert [row["n"] for row in rows] == [1, MISSING["int64"]]
    assert not bad


def test_parquet_values_that_are_missing_are_counted_or_bad(workspace: Workspace, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "flag": arrow.array([True, False, None, True, False, True]),
        "pair": arrow.array(
            [[1, 2], [3, None], [5, 6], None, [7, 8], [9, 10]], arrow.list_(arrow.int64(), 2)
        ),
        "ids": arrow.array([[1, 2], [], [3], [4], [5, None], [6]], arrow.list_(arrow.int32())),
        "curve": arrow.array([[0.5, None], [], [1.0], [1.0], [1.0], [2.0]], arrow.list_(arrow.float32())),
        "text": arrow.array(["a", "b", "c", "d", "e", None]).dictionary_encode(),
    }
    for number, rows in enumerate((slice(0, 6), slice(0, 6))):
        parquet.write_table(arrow.table(columns).slice(rows.start, rows.stop), tmp_path / f"{number}.parquet")
    source = open_source(tmp_path, options=PLAIN)
    rows, bad = read_all(source)
    assert [row["#"] for row in rows] == [0, 2, 5, 6, 8, 11]
    assert [row["flag"] for row in rows[:3]] == [1, MISSING["uint8"], 1]
    assert [row["ids"].tolist() for row in rows[:3]] == [[1, 2], [3], [6]]
    assert [row["pair"].tolist() for row in rows[:3]] == [[1, 2], [5, 6], [9, 10]]
    assert [(item.record, item.place, item.reason) for item in bad[3:]] == [
        (7, "1.parquet row 2", "field 'pair': a number of its list is missing"),
        (9, "1.parquet row 4", "field 'pair': found nothing"),
        (10, "1.parquet row 5", "field 'ids': a number of its list is missing"),
    ]
    result = bring_in(workspace, tmp_path, holdout=0.0)
    assert (result.num_read, result.splits) == (12, {"train": 6})
    assert result.notes == {
        "field 'flag' missing: stored as the number that the schema gives for no value": 2,
        "field 'curve' missing: stored as NaN": 2,
        "field 'text' missing: stored as empty text": 2,
    }


def test_classes_without_a_name(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    table = arrow.table({"label": [1, -1, None, 2, 0]}).replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    rows, bad = read_all(open_source(tmp_path / "a.parquet", options=PLAIN))
    assert [row["label"] for row in rows] == ["yes", "", "", "no"], "-1 says that there is no label"
    assert [(item.record, item.reason) for item in bad] == [
        (3, "field 'label': a class number without a name")
    ]


def test_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="not a whole Parquet"):
        open_source(path, options=PLAIN).fields()


def hf(folder: Path, count: int) -> None:
    """The files that `Dataset.save_to_disk` leaves, with a ClassLabel column."""
    arrow = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    features = {
        "text": {"_type": "Value", "dtype": "string"},
        "label": {"_type": "ClassLabel", "names": ["no", "yes"]},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    data = arrow.table({"text": [f"t {n}" for n in range(count)], "label": [n % 2 for n in range(count)]})
    data = data.replace_schema_metadata(metadata)
    with (
        arrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        arrow.ipc.new_stream(sink, data.schema) as out,
    ):
        for batch in data.to_batches(max_chunksize=3):
            out.write_batch(batch)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )


def test_hugging_face_folder(workspace: Workspace, tmp_path: Path) -> None:
    hf(tmp_path / "set" / "train", 10)
    hf(tmp_path / "set" / "validation", 4)
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert detect(tmp_path / "set") == "hf"
    result = bring_in(workspace, tmp_path / "set")
    assert result.splits == {"train": 10, "validation": 4}
    assert [row["label"] for row in stored(workspace, "validation")] == ["no", "yes", "no", "yes"]
    rows, _ = read_all(open_source(tmp_path / "set" / "train", options=PLAIN), part_bytes=1)
    assert [row["text"] for row in rows] == [f"t {n}" for n in range(10)]


def test_every_reader_works_in_another_process(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table(8), tmp_path / "a.parquet")
    hf(tmp_path / "hf", 9)
    tar(tmp_path / "a.tar", samples(6))
    mds(tmp_path / "mds", [3, 4])
    (tmp_path / "a.csv").write_text("id,text\n1,a\n2,b\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "a.txt").write_text("a\n\nb\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture((1, 2, 3)))
    for path in sorted(tmp_path.iterdir()):
        here = open_source(path, options=PLAIN)
        here.fields(), here.media(), here.splits()
        parts = list(here.parts(part_bytes=1))
        there = pickle.loads(pickle.dumps(here))
        for part in parts:
            sent = pickle.loads(pickle.dumps(part.to_send()))
            chunks = zip(here.read(part), there.read(sent), strict=True)
            assert all(repr(one.columns) == repr(two.columns) and one.num_records for one, two in chunks), (
                path.name
            )

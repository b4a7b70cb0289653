"""Tables whose beginning, names or bytes mislead: widened, obeyed, set aside or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_columns
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.tables.value_types import MISSING

from .bringing import SAFE, bring_in, stored
from .conftest import read_all

PLAIN = ImportOptions()


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_import_begins_again_with_wider_types(
    num_processes: int, workspace: Workspace, tmp_path: Path
) -> None:
    ids: list[int | None] = [*range(1500), 2**53 + 1, None, 2**63 + 5]
    path = lines(tmp_path / "a.jsonl", [{"id": number, "text": "a"} for number in ids])
    result = bring_in(workspace, path, holdout=0.0, part_bytes=8192, num_processes=num_processes)
    assert result.is_surveyed
    assert (result.fields[0].dtype, result.fields[0].missing) == ("uint64", MISSING["uint64"])
    wanted = [MISSING["uint64"] if number is None else number for number in ids]
    assert [row["id"] for row in stored(workspace, "train")] == wanted
    assert not result.bad


def test_files_of_a_set_get_one_type(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    lines(tmp_path / "set" / "a.jsonl", [{"id": 1, "text": "a"}])
    lines(tmp_path / "set" / "b.jsonl", [{"id": 2**64, "text": "b", "late": True}])
    bring_in(workspace, tmp_path / "set", holdout=0.0)
    rows = stored(workspace, "train")
    assert [row["id"] for row in rows] == ["1", str(2**64)]
    assert [row["late"] for row in rows] == [MISSING["uint8"], 1]
    lines(tmp_path / "set" / "c.jsonl", [{"metric": 0.5}])
    with pytest.raises(DataError, match=r"c\.jsonl has no field that a\.jsonl has"):
        bring_in(workspace, tmp_path / "set", holdout=0.0)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_declared_type_is_enforced(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    values = ["1", "300", "", "2"]
    if ending == "csv":
        path.write_text("text,n\n" + "".join(f"a,{value}\n" for value in values))
    else:
        lines(path, [{"text": "a", "n": int(value) if value else None} for value in values])
    rows, bad = read_all(open_source(path, options=ImportOptions(types={"n": "uint8"})))
    assert [row["n"] for row in rows] == [1, 2]
    assert [(item.record, item.reason) for item in bad] == [
        (1, "field 'n': a whole number was expected, found a number that does not fit"),
        (2, "field 'n': a whole number was expected, found nothing"),
    ]
    rows, bad = read_all(open_source(path, options=ImportOptions(types={"n": "string"})))
    assert [row["n"] for row in rows] == values
    with pytest.raises(ConfigError, match="no field 'm'"):
        open_source(path, options=ImportOptions(types={"m": "string"})).fields()


def test_rows_that_are_set_aside_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"say \\"hi\\", ok"\n2,caf\xe9\n3,c\n')
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        read_all(open_source(path, options=PLAIN))
    rows, bad = read_all(open_source(path, options=ImportOptions(bad_encoding="quarantine")))
    assert [row["id"] for row in rows] == [3]
    assert [item.raw for item in bad] == [b'1,"say \\"hi\\", ok"\n', b"2,caf\xe9\n"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_lines_that_end_with_a_carriage_return_alone(name: str, tmp_path: Path) -> None:
    texts = {"a.csv": "id,text\r1,a\r2,b\r", "a.jsonl": '{"text":"a"}\r{"text":"b"}\r', "a.txt": "a\rb\r"}
    (tmp_path / name).write_bytes(texts[name].encode())
    rows, bad = read_all(open_source(tmp_path / name, options=ImportOptions(records="lines")))
    assert ([row["text"] for row in rows], bad) == (["a", "b"], [])


def test_a_first_record_of_megabytes(tmp_path: Path) -> None:
    long = "line\n" * 1_000_000
    path = lines(tmp_path / "a.jsonl", [{"text": long}, {"text": "b"}])
    assert [len(row["text"]) for row in read_all(open_source(path, options=PLAIN))[0]] == [len(long), 1]
    (tmp_path / "a.csv").write_text(f'id,text\n1,"{long}"\n2,b\n')
    assert [row["id"] for row in read_all(open_source(tmp_path / "a.csv", options=PLAIN))[0]] == [1, 2]


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl", "a.parquet"])
def test_a_pointer_of_git_lfs_is_not_the_data(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(DataError, match="Git LFS pointer"):
        open_source(tmp_path / name, options=PLAIN)


def test_names_without_a_latin_letter_and_numbers_that_are_not_text(
    workspace: Workspace, tmp_path: Path
) -> None:
    row = {
        "\u6587": "a",
        "\u6807\u7b7e": 3,
        "vector": [48.8566, 2.3522],
        "boxes": [[48.8566, 2.3522], [51.5]],
    }
    result = bring_in(workspace, lines(tmp_path / "a.jsonl", [row]), holdout=0.0)
    assert result.names["field_1"] == "\u6807\u7b7e"
    (found,) = stored(workspace, "train")
    assert (found["vector"], found["boxes"]) == (row["vector"], json.dumps(row["boxes"]))
    assert not result.report.findings


def test_a_half_of_a_pair_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text":"\\ud83d"}\n{"text":"\\ud83d\\ude00"}\n')
    rows, bad = read_all(open_source(path, options=PLAIN))
    assert ([row["text"] for row in rows], [item.record for item in bad]) == (["\U0001f600"], [0])


def test_folders_of_parquet(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def put(place: str, **columns: Any) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns), path)

    put("hive/label=dog/0.parquet", n=pa.array([1], pa.int32()))
    put("hive/label=cat%20s/0.PARQUET", n=pa.array([2], pa.int64()))
    put("hive/_temporary/label=dog/0.parquet", n=[3])
    put("hive/.copies/label=dog/0.parquet", n=[4])
    rows, _ = read_all(open_source(tmp_path / "hive", options=PLAIN))
    assert [(row["n"], row["label"]) for row in rows] == [(2, "cat s"), (1, "dog")]
    put("splits/train/0.parquet", n=[1])
    put("splits/test/0.parquet", n=[2])
    assert open_source(tmp_path / "splits", options=PLAIN).splits() == ("test", "train")
    put("splits/stray.parquet", n=[3])
    with pytest.raises(DataError, match=r"stray\.parquet lies beside folders of splits"):
        open_source(tmp_path / "splits", options=PLAIN)
    put("mixed/a.parquet", n=[2**53 + 1])
    put("mixed/b.parquet", n=[0.5])
    rows, _ = read_all(open_source(tmp_path / "mixed", options=PLAIN))
    assert [row["n"] for row in rows] == [str(2**53 + 1), "0.5"]
    put("delta/a.parquet", n=[1])
    (tmp_path / "delta" / "_delta_log").mkdir()
    with pytest.raises(DataError, match="Delta Lake"):
        open_source(tmp_path / "delta", options=PLAIN)


def test_a_selection_of_a_hugging_face_set_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    state = {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="selection of its rows"):
        open_source(tmp_path, options=PLAIN)


def test_streams_of_arrow_batches(workspace: Workspace) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"text": ["a", "b", "c"], "n": [1, None, 3]})
    call: dict[str, Any] = {"name": "posts", "workspace": workspace, "policy": SAFE, "author": "ada"}
    for source in (iter(table.to_batches()), table.to_reader()):
        assert import_columns(source, **call).bad == {"field 'n': found nothing": 1}
    assert import_columns([table, table], **call).num_read == 6
    assert [row["n"] for row in stored(workspace, "train")][:3] == [1, MISSING["int64"], 3]

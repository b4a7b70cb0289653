from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import detect, open_source

from .bringing import bring_in, stored
from .conftest import read_all

PLAIN = ImportOptions()


@pytest.mark.parametrize("part_bytes", [1, 40, 1 << 20])
def test_files_of_a_folder_in_order_of_their_names(tmp_path: Path, part_bytes: int) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "b.jsonl").write_text('{"text": "b0"}\n{broken\n{"text": "b2"}\n')
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a0"}\n{"text": "a1"}\n'))
    assert detect(folder) == "jsonl"
    rows, bad = read_all(open_source(folder, options=PLAIN), part_bytes=part_bytes)
    assert rows == [{"#": n, "text": t} for n, t in ((0, "a0"), (1, "a1"), (2, "b0"), (4, "b2"))]
    assert [(record.record, record.place) for record in bad] == [(3, "b.jsonl line 2")]


def test_names_that_begin_with_a_split(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.csv").write_text("id,tweet\n1,a\n2,b\n")
    (folder / "test.csv").write_text("id,tweet\n3,c\n")
    result = bring_in(workspace, folder)
    assert result.splits == {"test": 1, "train": 2}
    assert stored(workspace, "test") == [{"id": 3, "text": "c"}]


def test_tables_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    (tmp_path / "b.csv").write_text("id,words\n1,a\n")
    with pytest.raises(DataError, match=r"b\.csv has other columns than a\.csv"):
        read_all(open_source(tmp_path, options=PLAIN))


def test_processes_read_a_set_like_one(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.jsonl").write_text("".join(f'{{"text": "{name}{n}"}}\n' for n in range(300)))
    bring_in(workspace, folder, part_bytes=1024, num_processes=2, holdout=0)
    assert [row["text"] for row in stored(workspace, "train")] == [
        f"{name}{n}" for name in "abc" for n in range(300)
    ]

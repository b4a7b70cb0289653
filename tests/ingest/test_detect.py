from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import detect, open_source
from rsc.ingest.readers.source import Fingerprint

PLAIN = ImportOptions()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", b"{}", "jsonl"),
        ("a.ndjson.zst", b"", "jsonl"),
        ("a.tsv.gz", b"", "csv"),
        ("a.md", b"x", "text"),
        ("a.parquet", b"x", "parquet"),
        ("a.tgz", b"x", "webdataset"),
        ("posts", b'  {"text": "a"}\n', "jsonl"),
        ("list.json", b' [{"text": "x"}]', "jsonl"),
        ("notes", b"plain words", "text"),
    ],
)
def test_names_and_first_bytes(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert detect(tmp_path / name) == kind


def test_a_folder_of_json_files_is_one_source_and_one_beside_texts_is_not(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('[{"text": "a"}]')
    assert detect(tmp_path) == "jsonl"
    assert [file.name for file in open_source(tmp_path, options=PLAIN).files()] == ["a.json", "b.json"]
    (tmp_path / "c.txt").write_text("a text")
    assert detect(tmp_path) == "text"


def test_unknown_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\1\2")
    with pytest.raises(DataError, match="--format"):
        open_source(tmp_path / "a.bin", options=PLAIN)


def test_trees_by_what_they_hold(tmp_path: Path) -> None:
    for name, kind in (("a.png", "images"), ("a.wav", "audio"), ("a.txt", "text"), ("a.csv", "csv")):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        (folder / "README.md").write_bytes(b"x")
        assert detect(folder) == kind
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.png", b"x")
        archive.writestr("docs/a.txt", b"x")
    assert detect(tmp_path / "a.zip") == "text"


def test_empty_folder_and_wrong_shapes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        open_source(tmp_path, options=PLAIN)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ConfigError, match="mds is a folder"):
        open_source(tmp_path / "a.txt", options=ImportOptions(format="mds"))
    with pytest.raises(ConfigError, match="images are read from a folder"):
        open_source(tmp_path / "a.txt", options=ImportOptions(format="images"))


@pytest.mark.parametrize(
    ("name", "start", "told"),
    [
        ("report.pdf", b"%PDF-1.7\n%\xe2\xe3\n", "a PDF"),
        ("book.xlsx", b"PK\3\4" + bytes(30), "an office document"),
        ("posts.json1", gzip.compress(b"{}", mtime=0), "packed by gzip"),
        ("app.db", b"SQLite format 3\0" + bytes(30), "an SQLite database"),
        ("core", b"\x7fELF\0\0", "not a format that can be told"),
    ],
)
def test_what_people_try_is_refused_by_its_name(tmp_path: Path, name: str, start: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(DataError, match=told) as caught:
        detect(tmp_path / name)
    assert caught.value.hint


def test_a_fingerprint_sees_every_change(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = Fingerprint.of([path])
    before.check([path])
    copy = tmp_path / "b.txt"
    copy.write_text("one")
    copy.replace(path)  # the same bytes in another file
    with pytest.raises(DataError, match="changed while it was being imported"):
        before.check([path])
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        before.check([path])

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.text import TextFile, TextTree, cut_blocks

from .conftest import read_all


@given(st.text("ab \n", max_size=2000), st.integers(1, 100))
def test_blocks_joined_are_the_text(text: str, size: int) -> None:
    blocks = cut_blocks(text, block_chars=size)
    assert "".join(blocks) == text
    assert all(size <= len(block) <= 16 * size for block in blocks[:-1])


def test_a_block_ends_at_a_blank_line_then_a_line_end_then_anywhere() -> None:
    assert cut_blocks("aaaa\nbb\n\ncc", block_chars=3) == ["aaaa\nbb\n\n", "cc"]
    assert cut_blocks("aaaaaaa\n" * 3, block_chars=3) == ["aaaaaaa\n"] * 3
    assert cut_blocks("a" * 100, block_chars=5) == ["a" * 80, "a" * 20]


def test_a_file_by_blocks_and_by_lines(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    text = "".join(f"Speaker {i}:\nWords of {i}.\n\n" for i in range(400))
    path.write_text(text)
    for part_bytes in (1 << 20, 1000):
        rows, _ = read_all(TextFile(path, options=ImportOptions(block_chars=256)), part_bytes=part_bytes)
        assert "".join(row["text"] for row in rows) == text
        assert [row["#"] for row in rows] == list(range(len(rows)))
    rows, _ = read_all(TextFile(path, options=ImportOptions(records="lines")), part_bytes=1000)
    assert len(rows) == 800
    assert rows[2] == {"#": 3, "text": "Speaker 1:"}


def test_the_line_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nthr\xe9e\n")
    with pytest.raises(DataError, match=r"a\.txt line 3 is not UTF-8"):
        read_all(TextFile(path, options=ImportOptions()))
    assert (
        read_all(TextFile(path, options=ImportOptions(encoding="cp1252")))[0][0]["text"]
        == "one\ntwo\nthr\u00e9e\n"
    )


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_zip_is_a_record_a_file(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name, data in {
        "b.txt": b"B",
        "sub/a.txt": b"A",
        "e.txt": b" \n",
        ".git/x.txt": b"no",
        "l.txt": b"\xff",
    }.items():
        (folder / name).write_bytes(data)
    root = folder
    if packed:
        root = tmp_path / "texts.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for path in folder.rglob("*.txt"):
                archive.write(path, path.relative_to(folder).as_posix())
    source = TextTree(root, options=ImportOptions(bad_encoding="quarantine"))
    rows, bad = read_all(source, part_bytes=1)
    assert rows == [{"#": 0, "text": "B", "path": "b.txt"}, {"#": 3, "text": "A", "path": "sub/a.txt"}]
    assert [(record.place, record.reason) for record in bad] == [
        ("e.txt", "no text in it"),
        ("l.txt", "not UTF-8"),
    ]


def test_a_whole_file_as_one_record(tmp_path: Path) -> None:
    path = tmp_path / "essay.txt"
    path.write_text("one\n\ntwo\n")
    source = open_source(path, options=ImportOptions(records="files"))
    assert read_all(source)[0] == [{"#": 0, "text": "one\n\ntwo\n", "path": "essay.txt"}]
    assert source.files() == [path]


def test_a_damaged_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match="not a whole zip archive"):
        list(TextTree(path, options=ImportOptions()).parts(part_bytes=100))


def test_tinyshakespeare_comes_back_whole(real_data: Path) -> None:
    path = real_data / "tinyshakespeare.txt"
    rows, bad = read_all(TextFile(path, options=ImportOptions()))
    assert not bad
    assert "".join(row["text"] for row in rows) == path.read_text()
    assert 200 < len(rows) < 300

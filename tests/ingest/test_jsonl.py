from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.lines import cut_at_lines
from rsc.ingest.readers.tables.infer_fields import SAMPLE_ROWS
from rsc.ingest.readers.tables.jsonl import JsonLines
from rsc.ingest.readers.tables.value_types import MISSING

from .bringing import bring_in, stored
from .conftest import read_all

PLAIN = ImportOptions()


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def kinds(source: JsonLines) -> dict[str, tuple[str, str]]:
    return {field.name: (field.kind, field.dtype) for field in source.fields()}


def test_types_follow_the_first_rows(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "id": 1, "score": 0.5, "ok": True, "tags": ["x"], "age": 3},
        {"text": "b", "id": 2, "score": 1, "ok": False, "tags": [], "age": None},
    ]
    source = JsonLines(write(tmp_path / "a.jsonl", *rows), options=PLAIN)
    assert kinds(source) == {
        "text": ("string", "uint8"),
        "id": ("tensor", "int64"),
        "score": ("tensor", "float64"),
        "ok": ("tensor", "uint8"),
        "tags": ("string", "uint8"),
        "age": ("tensor", "int64"),
    }
    found, bad = read_all(source)
    assert not bad
    assert found[0] == {"#": 0, "text": "a", "id": 1, "score": 0.5, "ok": 1, "tags": '["x"]', "age": 3}
    assert found[1]["age"] == source.fields()[-1].missing == MISSING["int64"]


def test_bad_lines_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "n": 1}',
        "{broken",
        "[1]",
        "",
        '{"text": "b", "n": "two"}',
        '{"text": "c", "n": 3}',
    ]
    rows, bad = read_all(JsonLines(write(tmp_path / "a.jsonl", lines[0], *lines[1:]), options=PLAIN))
    # "n" is text in one of the first rows, so it is a text field here
    assert [row["#"] for row in rows] == [0, 4, 5]
    assert [(record.place, record.record) for record in bad] == [("line 2", 1), ("line 3", 2)]
    assert bad[1].reason == "a JSON list, not an object"
    assert bad[0].raw == b"{broken"


def test_a_late_value_of_another_type_is_quarantined(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": 1}] * 1000 + [
        {"text": "b", "n": "two"},
        {"text": "d", "n": 4},
    ]
    found, bad = read_all(JsonLines(write(tmp_path / "a.jsonl", *rows), options=PLAIN))
    assert len(found) == 1001
    assert found[-1]["#"] == 1001
    assert [record.place for record in bad] == ["line 1001"]
    assert bad[0].reason == "field 'n': a whole number was expected, found text"
    assert "two" not in bad[0].reason


def test_missing_text_is_noted_and_new_fields_are_taken(tmp_path: Path) -> None:
    rows = [{"text": "a"}] * 1000 + [{"other": 1}]
    source = JsonLines(write(tmp_path / "a.jsonl", *rows), options=PLAIN).surveyed()
    chunks = [chunk for part in source.parts(part_bytes=1 << 20) for chunk in source.read(part)]
    assert [field.name for field in source.fields()] == ["text", "other"]
    assert chunks[0].notes == {
        "field 'text' missing: stored as empty text": 1,
        "field 'other' missing: stored as the number that the schema gives for no value": 1000,
    }


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_compressed_files_read_the_same(tmp_path: Path, suffix: str) -> None:
    plain = write(tmp_path / "a.jsonl", *({"text": f"line {i}"} for i in range(500)))
    packed = tmp_path / f"a{suffix}"
    data = plain.read_bytes()
    packed.write_bytes(gzip.compress(data) if suffix.endswith("gz") else zstandard.compress(data))
    expected = read_all(JsonLines(plain, options=PLAIN))
    assert read_all(JsonLines(packed, options=PLAIN), part_bytes=1000) == expected


def test_a_cut_archive_is_an_error_not_a_short_import(tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.gz"
    data = "".join(json.dumps({"text": str(i)}) + "\n" for i in range(100_000)).encode()
    packed.write_bytes(gzip.compress(data)[:-4000])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_all(JsonLines(packed, options=PLAIN), part_bytes=100_000)


def test_not_utf8_names_the_line_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "plain"}\n{"text": "caf\u00e9"}\n{"text": "end"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="line 2 is not UTF-8") as told:
        read_all(JsonLines(path, options=PLAIN))
    assert "--encoding latin-1" in str(told.value)
    assert "bad_encoding=quarantine" in str(told.value)
    rows, bad = read_all(JsonLines(path, options=ImportOptions(encoding="latin-1")))
    assert [row["text"] for row in rows] == ["plain", "caf\u00e9", "end"]
    rows, bad = read_all(JsonLines(path, options=ImportOptions(bad_encoding="quarantine")))
    assert [row["#"] for row in rows] == [0, 2]
    assert bad[0].raw == '{"text": "caf\u00e9"}'.encode("latin-1")


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    rows, bad = read_all(JsonLines(path, options=PLAIN))
    assert ([row["text"] for row in rows], bad) == (["a", "b"], [])


def test_a_huge_line_is_one_bad_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "x" * 5000}, {"text": "b"})
    parts = list(cut_at_lines(path, part_bytes=512, max_record_bytes=1024))
    assert [(part.first_record, part.span.too_long) for part in parts] == [(0, False), (1, True), (2, False)]
    source = JsonLines(path, options=PLAIN)
    chunks = [chunk for part in parts for chunk in source.read(part)]
    assert [record.place for chunk in chunks for record in chunk.bad] == ["line 2"]
    assert [text for chunk in chunks for text in chunk.columns.get("text", [])] == ["a", "b"]


def test_fields_are_chosen_and_renamed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"full name": "n", "body": "words", "n": 1, "text": "t"})
    with pytest.raises(ConfigError, match="'body' and 'text' would both be stored as 'text'"):
        JsonLines(path, options=ImportOptions(text_field="body")).fields()
    source = JsonLines(path, options=ImportOptions(text_field="body", fields=("full name",)))
    assert list(kinds(source)) == ["full_name", "text"]
    assert read_all(source)[0] == [{"#": 0, "full_name": "n", "text": "words"}]
    with pytest.raises(ConfigError, match="no field 'bodi'") as told:
        JsonLines(path, options=ImportOptions(text_field="bodi")).fields()
    assert "body" in str(told.value)


def test_something_else_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("hello\nworld\n")
    with pytest.raises(DataError, match="does not look like JSON lines: line 1: not JSON"):
        JsonLines(path, options=PLAIN).fields()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=40), st.integers(1, 300))
def test_any_cut_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in values), newline=""
    )
    rows, bad = read_all(JsonLines(path, options=PLAIN), part_bytes=size)
    assert [row["text"] for row in rows] == values
    assert [row["#"] for row in rows] == list(range(len(values)))
    assert not bad


def test_a_misfit_is_kept_as_it_was_written(workspace: Workspace, tmp_path: Path) -> None:
    """A half of a UTF-16 pair, which JSON can say and UTF-8 cannot, is no reason to stop either."""
    odd = r'{"id": "x",   "text": "\ud800"}'
    good = ['{"id": 1, "text": "a"}'] * SAMPLE_ROWS
    path = write(tmp_path / "posts.jsonl", *good, odd)
    result = bring_in(workspace, path, holdout=0.0)
    assert (result.num_read, result.splits) == (SAMPLE_ROWS + 1, {"train": SAMPLE_ROWS})
    assert result.bad_places == (f"line {SAMPLE_ROWS + 1}",)
    assert [row["raw"].decode() for row in stored(workspace, "quarantine")] == [odd]


@pytest.mark.parametrize("value", ["1e400", "-1e309", "[1.5, 1e400]", '{"a": [1e400]}', "1" * 400 + ".5"])
@pytest.mark.parametrize("others", ["1.5", "[1.5, 2.5]", '{"a": [1.5]}', '"word"', "null"])
def test_a_number_beyond_float64_is_never_infinity(tmp_path: Path, value: str, others: str) -> None:
    """Infinity that the source writes is another matter: it is taken, and counted."""
    lines = [f'{{"x": {each}, "text": "t"}}' for each in (others, value, "Infinity", others)]
    rows, bad = read_all(JsonLines(write(tmp_path / "a.jsonl", *lines), options=PLAIN))
    told = {each.record: each.reason for each in bad}
    assert "larger than a float64" in told[1]
    assert [row["#"] for row in rows if row["#"] in (0, 3)] == [0, 3]
    assert all("Infinity" in str(row["x"]) or "inf" in str(row["x"]) for row in rows if row["#"] == 2)

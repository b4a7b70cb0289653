from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.tables.delimited import DelimitedTable

from .conftest import read_all

PLAIN = ImportOptions()


def table(path: Path, text: str) -> DelimitedTable:
    path.write_bytes(text.encode())
    return DelimitedTable(path, options=PLAIN)


def test_types_quotes_and_an_unnamed_first_column(tmp_path: Path) -> None:
    source = table(
        tmp_path / "a.csv",
        ',class,score,zip,tweet\n0,1,0.5,01234,"a, ""b""\nsecond line"\n1,2,1e3,99999,plain\n',
    )
    assert [(f.name, f.kind, f.dtype) for f in source.fields()] == [
        ("column_0", "tensor", "int64"),
        ("class", "tensor", "int64"),
        ("score", "tensor", "float64"),
        ("zip", "string", "uint8"),
        ("tweet", "string", "uint8"),
    ]
    rows, bad = read_all(source)
    assert not bad
    assert rows[0]["tweet"] == 'a, "b"\nsecond line'
    assert (rows[0]["zip"], rows[1]["score"], rows[1]["#"]) == ("01234", 1000.0, 1)


def test_the_only_text_column_becomes_text(tmp_path: Path) -> None:
    assert [f.name for f in table(tmp_path / "a.csv", "id,tweet\n1,hello\n").fields()] == ["id", "text"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_separators(tmp_path: Path, delimiter: str) -> None:
    rows, _ = read_all(table(tmp_path / "a.csv", f"id{delimiter}text\n1{delimiter}a, b\n"))
    assert rows == [{"#": 0, "id": 1, "text": "a, b"}]


def test_rows_of_another_width_are_quarantined_with_their_line(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", 'id,text\n1,"two\nlines"\n2\n\n3,c\n4,"x"y\n5,e\n')
    rows, bad = read_all(source)
    assert [row["id"] for row in rows] == [1, 3, 5]
    assert [row["#"] for row in rows] == [0, 2, 4]
    assert [(record.record, record.place) for record in bad] == [(1, "line 4"), (3, "line 7")]
    assert bad[0].reason == "1 cells where the header has 2"


def test_a_quote_never_closed_is_an_error_with_its_line(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", 'id,text\n1,a\n2,"b\n3,c\n')
    with pytest.raises(DataError, match="line 3 opens a quote that is never closed"):
        read_all(source)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,text\n"1,a\n2,b\n', 2),
        ('id,text\n1,"a\n2,b\n', 2),
        ('"id,text\n1,a\n2,b\n', 1),
        ('id,text\n"unterminated,x\n', 2),
        ('id,text\n1,"a\n' + "2,b\n" * 400_000, 2),
    ],
    ids=["first cell", "last cell", "header", "no row behind", "longer than the head"],
)
def test_a_quote_never_closed_at_the_start_is_named_as_one(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(DataError, match=f"line {line} opens a quote that is never closed"):
        read_all(table(tmp_path / "a.csv", text))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns called 'a'"):
        table(tmp_path / "a.csv", "a,a\n1,2\n").fields()


def test_header_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of 2 cells"):
        table(tmp_path / "a.csv", "a,b\n").fields()


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=30), st.integers(1, 200), st.booleans())
def test_any_cut_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, str]], size: int, packed: bool
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("a", "b"), *values])
    path = tmp_path_factory.mktemp("cut") / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(text.getvalue().encode()) if packed else text.getvalue().encode())
    rows, bad = read_all(DelimitedTable(path, options=ImportOptions(fields=("a", "b"))), part_bytes=size)
    assert not bad
    assert [row["#"] for row in rows] == list(range(len(values)))
    texts = [tuple(str(row[name]) for name in row if name != "#") for row in rows]
    if all(isinstance(value, str) for row in rows for name, value in row.items() if name != "#"):
        assert texts == values


def test_davidson_tweets(real_data: Path) -> None:
    source = DelimitedTable(real_data / "davidson_tweets.csv", options=PLAIN)
    rows, bad = read_all(source)
    assert (len(rows), bad) == (24783, [])
    assert read_all(source, part_bytes=100_000)[0] == rows
    assert {row["class"] for row in rows} == {0, 1, 2}
    assert rows[0]["text"].startswith("!!! RT @mayasolovely")


@pytest.mark.parametrize("first", ["sep=;", "SEP=,", "sep=|", "sep=\t", "sep=:"])
def test_a_line_that_names_the_separator_is_no_header(tmp_path: Path, first: str) -> None:
    """Spreadsheets write it; taken as names, it makes the header a record."""
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\n" + first[-1].join(["x", "text"]) + "\n" + first[-1].join(["1", "a"]) + "\n")
    with pytest.raises(DataError, match="names the separator"):
        DelimitedTable(path, options=ImportOptions()).fields()

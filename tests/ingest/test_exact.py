"""What is read back is what was written, or the import says otherwise: one property a reader."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.source import BadRecord, Source
from rsc.ingest.readers.tables import delimited, jsonl

from .conftest import read_all

PLAIN = ImportOptions()
quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8)
wholes = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64]),
)
fractions = st.one_of(st.floats(), st.sampled_from([0.1, -0.0, 1e300, 5e-324]))
number_lists = st.lists(st.one_of(wholes, fractions), max_size=4)


@pytest.fixture(autouse=True)
def _few_rows_give_the_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that types prove too narrow within a small table."""
    monkeypatch.setattr(jsonl, "SAMPLE_ROWS", 2)
    monkeypatch.setattr(delimited, "SAMPLE_ROWS", 2)


def values_by_row(source: Source, name: str) -> tuple[dict[int, Any], list[BadRecord]]:
    """Record -> stored value. The only text field is called `text`."""
    rows, bad = read_all(source, part_bytes=200)
    return {row["#"]: row.get(name, row.get("text")) for row in rows}, bad


def missing_of(source: Source, name: str) -> int | None:
    return next((item.missing for item in source.fields() if item.name == name), None)


def is_same(found: Any, value: Any) -> bool:
    """Whether a stored value is the JSON value, in the forms that docs/import/jsonl.md names."""
    found = found.tolist() if isinstance(found, np.ndarray | np.generic) else found
    if value is None:
        return found == "" or (isinstance(found, float) and math.isnan(found))
    if isinstance(found, str) and not isinstance(value, str):
        return found == json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) or isinstance(found, float):
        return not isinstance(found, str | list) and (found == value or (found != found and value != value))
    if isinstance(value, list) and isinstance(found, list):
        return len(found) == len(value) and all(map(is_same, found, value))
    return (type(found) is type(value) and found == value) or (
        isinstance(value, bool) and found == int(value)
    )


class Marked:
    """A source as read_all reads it, with its `missing` numbers at hand afterwards."""

    def __init__(self, source: Source) -> None:
        self.used = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.used, name)

    def surveyed(self) -> Source:
        self.used = self.used.surveyed()
        return self.used


def check(source: Source, wanted: list[Any], *, name: str = "v") -> None:
    marked: Any = Marked(source)
    found, bad = values_by_row(marked, name)
    assert sorted([*found, *(record.record for record in bad)]) == list(range(len(wanted)))
    mark = missing_of(marked.used, name)
    for record, value in found.items():
        if mark is not None and found[record] == mark:
            assert wanted[record] is None
        else:
            assert is_same(value, wanted[record]), (value, wanted[record])


@quick
@given(
    st.one_of(
        st.lists(st.one_of(st.none(), wholes), min_size=1, max_size=12),
        st.lists(st.one_of(st.none(), wholes, fractions), min_size=1, max_size=12),
        st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=12),
        st.lists(
            st.one_of(st.none(), number_lists, st.lists(number_lists, max_size=3)), min_size=1, max_size=8
        ),
        st.lists(st.one_of(st.none(), wholes, words, number_lists, st.booleans()), min_size=1, max_size=12),
    )
)
def test_json_lines(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    path = tmp_path_factory.mktemp("exact") / "a.jsonl"
    path.write_text("".join(json.dumps({"k": 1, "v": value}) + "\n" for value in values))
    check(open_source(path, options=PLAIN), values)


spelled = st.one_of(
    wholes.map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.from_regex(r"[-+]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["", "007", "1.10", "1.1", "12e4567", "1e5", "-0", "+5", "0.10", "1.", ".5", "1e400"]),
)


def spellings(number: Any, cells: list[str]) -> set[str]:
    """The texts that the stored number stands for, in the styles of docs/import/csv.md."""
    if isinstance(number, int | np.integer):
        return {str(number)}
    value = float(number)
    styles = {repr(value), repr(value).removesuffix(".0")}
    for decimals in range(25):
        styles |= {f"{value:.{decimals}f}", f"{value:.{decimals}e}"}
    short = {style.lower() for style in styles}
    exponents = {cell for cell in cells if "e" in cell.lower() and float(cell) == value}
    return short | {
        cell.lower()
        for cell in exponents
        if 1 <= abs(float(cell.lower().partition("e")[0])) < 10 or not value
    }


@quick
@given(st.lists(spelled, min_size=1, max_size=12))
def test_csv(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    path = tmp_path_factory.mktemp("exact") / "a.csv"
    path.write_text("k,v\n" + "".join(f"x,{cell}\n" for cell in cells))
    marked: Any = Marked(open_source(path, options=PLAIN))
    found, bad = values_by_row(marked, "v")
    assert sorted([*found, *(record.record for record in bad)]) == list(range(len(cells)))
    mark = missing_of(marked.used, "v")
    for record, value in found.items():
        cell = cells[record]
        if isinstance(value, str):
            assert value == cell
        elif (mark is not None and value == mark) or value != value:
            assert cell == ""
        else:
            assert cell.lower() in spellings(value, cells)


@quick
@given(st.lists(st.tuples(words, words), min_size=1, max_size=10))
def test_quoted_text_in_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
        [("first", "second"), *(("w" + a, "w" + b) for a, b in rows)]
    )
    path = tmp_path_factory.mktemp("exact") / "a.csv"
    path.write_bytes(text.getvalue().encode())
    found, bad = read_all(open_source(path, options=PLAIN), part_bytes=50)
    assert not bad
    assert [(row["first"], row["second"]) for row in found] == [("w" + a, "w" + b) for a, b in rows]

"""Which records are taken: by value, by draw, without duplicates, as many as wanted."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_columns
from rsc.ingest.select import Condition, LeftOut, Selection
from rsc.store.dataset import Dataset
from rsc.store.format.schema import Field
from tests.ingest.bringing import POLICY, bring_in, stored

SMALL: dict[str, Any] = {"holdout": 0.0, "part_bytes": 1024}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(count: int = 300) -> list[dict[str, Any]]:
    """Every tenth text is that of an earlier row; every seventh row has no score."""
    return [
        {
            "id": 2**62 + number,
            "text": f"post {number // 2 if number % 10 == 0 else number} of many, no two alike",
            "lang": ("en", "de", "fr")[number % 3],
            "score": None if number % 7 == 0 else number / 300,
            "votes": None if number % 5 == 0 else number,
        }
        for number in range(count)
    ]


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        ({"lang": "en"}, lambda row: row["lang"] == "en"),
        ({"lang": "en, de"}, lambda row: row["lang"] != "fr"),
        ({"lang": "!=en"}, lambda row: row["lang"] != "en"),
        ({"votes": ">=20"}, lambda row: row["votes"] is not None and row["votes"] >= 20),
        ({"votes": "<20.5"}, lambda row: row["votes"] is not None and row["votes"] < 20.5),
        ({"votes": "!=21"}, lambda row: row["votes"] is not None and row["votes"] != 21),
        ({"votes": "21,22"}, lambda row: row["votes"] in (21, 22)),
        ({"score": ">0.5"}, lambda row: row["score"] is not None and row["score"] > 0.5),
        ({"id": str(2**62 + 17)}, lambda row: row["id"] == 2**62 + 17),
        ({"lang": "de", "votes": "<=100"}, lambda r: r["lang"] == "de" and (r["votes"] or 999) <= 100),
    ],
)
def test_where_takes_what_passes_and_counts_the_rest(
    workspace: Workspace,
    tmp_path: Path,
    where: dict[str, str],
    passes: Callable[[dict[str, Any]], bool],
) -> None:
    rows = made()
    result = bring_in(workspace, lines(tmp_path / "posts.jsonl", rows), where=where, **SMALL)
    wanted = [row["id"] for row in rows if passes(row)]
    assert ids(stored(workspace, "train")) == wanted
    assert result.num_read == len(rows)
    assert sum(result.left_out.values()) == len(rows) - len(wanted)
    assert result.report.records == len(wanted)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 2), min_size=1, max_size=20),
    limit=st.one_of(st.integers(-(2**65), 2**65), st.fractions(-(2**40), 2**40)),
    name=st.sampled_from(["<", "<=", ">", ">="]),
)
def test_whole_numbers_are_compared_without_rounding(values: list[int], limit: Any, name: str) -> None:
    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[name]
    condition = Condition(Field("n", "tensor", "int64"), name, (str(limit),))
    assert condition.passes(np.array(values, np.int64)).tolist() == [
        compare(value, limit) for value in values
    ]


def test_what_cannot_be_judged_is_refused_with_the_fields_that_can(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = lines(tmp_path / "posts.jsonl", [{"text": "a", "n": 1, "v": [1.0, 2.0]}] * 3)
    for where, match in (
        ({"langue": "en"}, "no field 'langue'"),
        ({"n": "en"}, "holds numbers"),
        ({"text": ">3"}, "no order"),
        ({"v": "1"}, "no single text or number"),
        ({"n": ">1,2"}, "takes one number"),
    ):
        with pytest.raises(ConfigError, match=match):
            bring_in(workspace, source, where=where)
    with pytest.raises(ConfigError, match="dedup: no field"):
        bring_in(workspace, source, dedup="txt")
    with pytest.raises(DataError, match="none of the 3 records"):
        bring_in(workspace, source, where={"n": "2"})


@pytest.mark.parametrize("processes", [1, 2])
def test_dedup_keeps_the_first_of_equal_records_whatever_the_parts(
    workspace: Workspace, tmp_path: Path, processes: int
) -> None:
    rows = made()
    source = lines(tmp_path / "posts.jsonl", rows)
    result = bring_in(workspace, source, dedup="text", num_processes=processes, **SMALL)
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(row["text"], row["id"])
    assert ids(stored(workspace, "train")) == list(first.values())
    assert sum(result.left_out.values()) == len(rows) - len(first) > 0


def test_dedup_of_all_fields_is_exact(workspace: Workspace, tmp_path: Path) -> None:
    """Values that run together, numbers that are nearly equal, and missing ones stay apart."""
    rows = [
        {"text": "ab", "more": "c", "n": 1.0},
        {"text": "a", "more": "bc", "n": 1.0},
        {"text": "a", "more": "bc", "n": math.nextafter(1.0, 2)},
        {"text": "a", "more": "bc", "n": 1.0},
        {"text": "a", "more": "", "n": None},
    ]
    bring_in(workspace, lines(tmp_path / "posts.jsonl", rows), dedup="*", holdout=0.0)
    assert len(stored(workspace, "train")) == 4


@pytest.mark.parametrize("limit", [1, 7, 299, 300, 5000])
@pytest.mark.parametrize("extra", [{}, {"where": {"lang": "en"}}, {"dedup": "text"}])
def test_limit_takes_the_first_that_the_other_rules_let_through(
    workspace: Workspace, tmp_path: Path, limit: int, extra: dict[str, Any]
) -> None:
    source = lines(tmp_path / "posts.jsonl", made())
    bring_in(workspace, source, name="all", **extra, **SMALL)
    result = bring_in(workspace, source, limit=limit, **extra, **SMALL)
    wanted = stored(workspace, "train", name="all")[:limit]
    assert ids(stored(workspace, "train")) == ids(wanted)
    assert result.num_read == len(wanted) + sum(result.left_out.values())
    assert result.is_limited == (len(wanted) == limit)
    facts = Dataset.open(workspace.data, name="posts").facts
    assert facts["records"]["left_out"] == sum(result.left_out.values())
    assert any("limit" in note for note in result.report.notes) == result.is_limited


def test_bad_records_before_the_limit_are_kept_apart_and_later_ones_are_not_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    good = [json.dumps({"text": f"post {number}"}) for number in range(6)]
    text = [good[0], "{bad", *good[1:4], "{bad too", *good[4:]]
    (tmp_path / "posts.jsonl").write_text("\n".join(text) + "\n")
    result = bring_in(workspace, tmp_path / "posts.jsonl", limit=3, holdout=0.0)
    assert (result.num_read, sum(result.bad.values())) == (4, 1)
    assert [row["text"] for row in stored(workspace, "train")] == ["post 0", "post 1", "post 2"]


def test_a_sample_is_the_same_records_in_any_order_and_grows_with_its_share(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = made()
    forwards, backwards = lines(tmp_path / "a.jsonl", rows), lines(tmp_path / "b.jsonl", rows[::-1])
    drawn = {}
    for name, source, share, seed in (
        ("few", forwards, 0.2, 0),
        ("turned", backwards, 0.2, 0),
        ("many", forwards, 0.6, 0),
        ("other", forwards, 0.2, 1),
    ):
        bring_in(workspace, source, name=name, sample=share, sample_seed=seed, holdout=0.0)
        drawn[name] = set(ids(stored(workspace, "train", name=name)))
    assert drawn["few"] == drawn["turned"] < drawn["many"]
    assert drawn["few"] != drawn["other"]
    assert 30 < len(drawn["few"]) < 90


def test_batches_that_come_once_are_refused_where_they_would_be_read_twice(workspace: Workspace) -> None:
    batches = [{"text": ["a", "b", "a"]}, {"text": ["b", "c"]}]
    call: dict[str, Any] = {"name": "posts", "workspace": workspace, "policy": POLICY, "author": "ada"}
    options = ImportOptions(dedup=("text",), holdout=0.0)
    with pytest.raises(ConfigError, match="once only"):
        import_columns(iter(batches), options=options, **call)
    import_columns(batches, options=options, **call)
    assert [row["text"] for row in stored(workspace, "train")] == ["a", "b", "c"]


@given(st.lists(st.integers(0, 5)), st.one_of(st.none(), st.integers(1, 8)))
def test_what_is_left_out_is_what_a_plain_loop_leaves_out(values: list[int], limit: int | None) -> None:
    selection = Selection(dedup=("x",), limit=limit)
    found = selection.find_left_out((number, bytes([value])) for number, value in enumerate(values))
    taken, repeated = [], []
    for number, value in enumerate(values):
        if limit is not None and len(taken) == limit:
            break
        (repeated if value in [values[n] for n in taken] else taken).append(number)
    stop = None if limit is None or len(taken) < limit else taken[-1] + 1
    if stop is not None:
        repeated = [number for number in repeated if number < stop]
    assert (found.repeated.tolist(), found.stop) == (repeated, stop)
    assert isinstance(found, LeftOut)

"""A column of numbers that holds identifiers stops an import with a question, whatever format it comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from rsc.config import Workspace
from rsc.errors import ConfigError, ReviewRejected
from rsc.review.number_column import identifiers_in
from rsc.review.scanner.scanner import Scanner

from .bringing import POLICY, bring_in, stored

COUNT = 40
_random = np.random.default_rng(5)


def _with_check_digit(stem: int) -> int:
    digits = [int(digit) for digit in str(stem * 10)][::-1]
    total = sum(sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits))
    return stem * 10 + -total % 10


CARDS = [_with_check_digit(410_000_000_000_000 + int(n)) for n in _random.integers(0, 10**13, COUNT)]
AMERICAN = [
    int(f"{_random.choice([212, 415, 617, 713])}{_random.choice([232, 455, 766])}{n:04}")
    for n in _random.integers(1000, 9999, COUNT)
]
GERMAN = [int(f"4917{n:09}") for n in _random.integers(0, 10**9, COUNT)]
NINE_DIGITS = [int(f"5{n:08}") for n in _random.integers(10**6, 10**8, COUNT)]
LATITUDES = [47 + n / 1e6 for n in _random.integers(100_001, 999_999, COUNT)]
BIRTHS = [19_000_101 + 10_000 * int(n) for n in _random.integers(20, 99, COUNT)]

IDENTIFIERS = {
    "phone": (AMERICAN, "phone"),
    "Handynummer": (GERMAN, "phone"),
    "value": (AMERICAN, "phone"),
    "column_3": (GERMAN, "phone"),
    "payload": (CARDS, "credit_card"),
    "card": (CARDS, "credit_card"),
    "ssn": (NINE_DIGITS, "ssn"),
    "lat": (LATITUDES, "coordinates"),
    "dob": (BIRTHS, "date_of_birth"),
    "passport_no": (NINE_DIGITS, "id_document"),
}
LOOK_ALIKES: dict[str, list[Any]] = {
    "id": list(range(4_155_550_100, 4_155_550_100 + COUNT)),
    "timestamp": [1_700_000_000 + 86_400 * n for n in range(COUNT)],
    "ts_ms": [1_700_000_000_000 + 86_400_123 * n for n in range(COUNT)],
    "order_id": [int(n) for n in _random.integers(10**15, 10**16, COUNT)],
    "tweet": [int(n) for n in _random.integers(10**17, 10**18, COUNT)],
    "views": [int(n) for n in _random.integers(0, 10**10, COUNT)],
    "price": [float(n) / 100 for n in _random.integers(100, 10**6, COUNT)],
    "birth_year": [int(n) for n in _random.integers(1930, 2010, COUNT)],
    "num_calls": [int(n) for n in _random.integers(0, 50, COUNT)],
    "token": [int(n) for n in _random.integers(0, 50_000, COUNT)],
    "bytes": [int(n) for n in _random.integers(10**9, 10**13, COUNT)],
}


def _jsonl(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


def _csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    return path.with_suffix(".csv")


def _parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def _arrow(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.feather.write_feather(pyarrow.table(columns), str(path.with_suffix(".arrow")))
    return path.with_suffix(".arrow")


@pytest.mark.parametrize("write", [_jsonl, _csv, _parquet, _arrow])
def test_identifiers_among_numbers_are_a_question(
    workspace: Workspace, tmp_path: Path, write: Callable[..., Path]
) -> None:
    notes = [f"note {n} of the day" for n in range(COUNT)]
    source = write(tmp_path / "visits", {"text": notes, "phone": AMERICAN, "age": [30] * COUNT})
    with pytest.raises(ReviewRejected, match="are the numbers in field 'phone' personal data") as told:
        bring_in(workspace, source)
    assert told.value.hint is not None
    assert "schema.phone=string" in told.value.hint
    assert "plain_numbers=phone" in told.value.hint
    assert not list(workspace.data.glob("posts/*/root.json"))

    bring_in(workspace, source, types={"phone": "string"}, holdout=0.0)
    assert {row["phone"] for row in stored(workspace, "train")} == {"[PHONE]"}
    bring_in(workspace, source, plain_numbers=("phone",), holdout=0.0)
    assert [row["phone"] for row in stored(workspace, "train")] == AMERICAN
    result = bring_in(workspace, source, fields=("text", "age"), holdout=0.0)
    assert [field.name for field in result.fields] == ["text", "age"]


def test_what_the_policy_allows_is_no_question(workspace: Workspace, tmp_path: Path) -> None:
    policy = POLICY.replace(b'phone = "redact"', b'phone = "allow"')
    policy = policy.replace(b"[reasons]", b'[reasons]\nphone = "our own desks"')
    source = _csv(tmp_path / "desks", {"phone": AMERICAN, "text": ["a desk"] * COUNT})
    assert bring_in(workspace, source, policy=policy).num_read == COUNT


def test_a_plain_field_must_be_there(workspace: Workspace, tmp_path: Path) -> None:
    source = _csv(tmp_path / "desks", {"phone": AMERICAN})
    with pytest.raises(ConfigError, match="plain_numbers: no field 'fone' is taken"):
        bring_in(workspace, source, plain_numbers=("fone",))


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner("re2")


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("name", IDENTIFIERS)
def test_identifiers_are_known_by_name_or_shape(name: str, dtype: type, scanner: Scanner) -> None:
    values, kind = IDENTIFIERS[name]
    if kind == "coordinates" and dtype is not np.float64:
        pytest.skip("positions are no whole numbers")
    column: np.ndarray[Any, Any] = np.array([*values, 0]).astype(dtype)
    assert identifiers_in(name, column, scan_many=scanner.scan_many) == kind


def test_a_tenth_of_a_named_column_is_enough(scanner: Scanner) -> None:
    column = np.array([*AMERICAN[:8], *range(56)], np.int64)
    assert identifiers_in("phone", column, scan_many=scanner.scan_many) == "phone"


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_pass(name: str, scanner: Scanner) -> None:
    assert identifiers_in(name, np.array(LOOK_ALIKES[name]), scan_many=scanner.scan_many) == ""


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf], [-(2**63)], [0, -1]])
def test_odd_columns_pass(values: list[Any], scanner: Scanner) -> None:
    for name in ("phone", "value"):
        assert identifiers_in(name, np.array(values), scan_many=scanner.scan_many) == ""

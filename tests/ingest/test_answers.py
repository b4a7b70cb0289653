"""The list of what a decoding worker may answer (ingest/answers.py) has all that answers are made of."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
import typing
from collections import Counter

import numpy as np
import pytest

from rsc import errors
from rsc.errors import RscError
from rsc.ingest import answers
from rsc.ingest.answers import load_answer
from rsc.ingest.map_part import PartResult, PlacedFinding
from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.source import BadRecord, NarrowTypes
from rsc.ingest.screen import FoundIn
from rsc.review.redact import Replacement
from rsc.review.report import ReviewReport
from rsc.store.format import columns
from rsc.store.format.columns import Columns, Ragged


def classes_of(kind: object, *, seen: set[type]) -> set[type]:
    """Classes of RSC that a value of this type can hold, by the types of its fields."""
    for inner in typing.get_args(kind):
        classes_of(inner, seen=seen)
    if not isinstance(kind, type) or not kind.__module__.startswith("rsc.") or kind in seen:
        return seen
    seen.add(kind)
    names = {**vars(columns), **vars(importlib.import_module(kind.__module__))}  # `Columns` is an alias there
    for hint in typing.get_type_hints(kind, names).values():
        classes_of(hint, seen=seen)
    return seen


def test_every_class_that_a_result_is_made_of_is_on_the_list() -> None:
    needed = {(kind.__module__, kind.__qualname__) for kind in classes_of(PartResult, seen=set())}
    assert {("rsc.ingest.map_part", "PlacedFinding"), ("rsc.review.report", "ReviewReport")} < needed
    assert needed <= answers._PLAIN


def test_every_entry_of_the_list_is_there() -> None:
    """A class that was renamed leaves an entry that allows nothing."""
    for module, name in answers._ALLOWED:
        if not module.startswith("numpy."):  # of numpy 2 and of 1
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.parametrize(
    "kind",
    [
        *(each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, RscError)),
        NarrowTypes,
        LimitPassed,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_ours_comes_back(kind: type[RscError]) -> None:
    came = load_answer(pickle.dumps(kind("what failed", hint="what to do")))
    assert isinstance(came, RscError)
    assert (type(came), came.message, came.hint) == (kind, "what failed", "what to do")


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64", "U3", "S3"]
)
def test_arrays_of_every_kind_come_back(dtype: str) -> None:
    values = np.zeros((2, 3), dtype=dtype)
    stored: dict[str, Columns] = {
        "train": {"fixed": values, "ragged": Ragged(values.reshape(-1), np.array([0, 1, 6]))}
    }
    came = load_answer(pickle.dumps(PartResult(0, 1, stored, [], [], None, 2)))
    assert isinstance(came, PartResult)
    fixed, parts = came.columns["train"]["fixed"], came.columns["train"]["ragged"]
    assert isinstance(fixed, np.ndarray)
    assert isinstance(parts, Ragged)
    assert (fixed.dtype, fixed.shape, len(parts)) == (values.dtype, (2, 3), 2)


def test_a_result_with_something_in_every_field_comes_back() -> None:
    what = Replacement("email", 0, 3, "email", "redact", 0, 3, "[EMAIL 1-8]")
    full = PartResult(
        number=3,
        size_bytes=5,
        columns={"train": {"label": np.arange(2)}},
        found=[PlacedFinding("train", 0, FoundIn(7, 0, "text", "code", what))],
        bad=[BadRecord(1, "line 2", "why", raw=b"x")],
        report=ReviewReport(1, 0, 0, 3, {"text": {"email": {"redact": 1}}}, media={"EXIF": 1}),
        num_read=2,
        unpacked_bytes=9,
        notes=Counter({"a note": 1}),
        left_out=Counter({"where": 1}),
        contents=[(1, b"digest")],
        name="a.jsonl",
        first_record=7,
    )
    assert all(getattr(full, item.name) for item in dataclasses.fields(full)), "a field is left empty here"
    came = load_answer(pickle.dumps(full))
    assert isinstance(came, PartResult)
    assert pickle.dumps(came) == pickle.dumps(full)

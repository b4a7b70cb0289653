from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import DataError
from rsc.store.format.columns import (
    Columns,
    Ragged,
    columns_from_records,
    concatenate_columns,
    count_samples,
    sample_bytes,
    slice_columns,
)
from rsc.store.format.frames import decode_frame
from rsc.store.format.schema import Field, Schema
from tests.store.conftest import SCHEMA, assert_equal, encode_frame, make_columns, schemas_with_columns


@settings(max_examples=60, deadline=None)
@given(schemas_with_columns(), st.integers(0, 5))
def test_slices_join_to_the_whole(case: tuple[Schema, Columns], cut: int) -> None:
    schema, columns = case
    num_samples = count_samples(schema, columns)
    cut = min(cut, num_samples)
    parts = [slice_columns(columns, 0, cut), slice_columns(columns, cut, num_samples)]
    assert_equal(concatenate_columns(parts), columns)


def test_sample_bytes_counts_what_is_stored() -> None:
    columns = make_columns(20)
    captions, tokens = columns["caption"], columns["tokens"]
    assert isinstance(captions, Ragged)
    assert isinstance(tokens, Ragged)
    expected = [6 + 8 + 4 + 4 + len(captions[i]) + 2 * len(tokens[i]) for i in range(20)]
    assert sample_bytes(SCHEMA, columns).tolist() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 3, 3), np.uint8)}, "shape"),
        ({"image": np.zeros((4, 3, 2), np.int8)}, "holds uint8"),
        ({"label": np.zeros(3, np.int64)}, "differ"),
        ({"tokens": np.zeros(4, np.uint16)}, "is tokens"),
        ({"tokens": Ragged(np.zeros(3, np.uint16), np.array([0, 2, 1, 3, 3]))}, "rise"),
        ({"tokens": Ragged(np.zeros(4, np.uint16), np.array([0, 1, 1, 3, 3]))}, "rise"),
        ({"extra": np.zeros(4)}, "not the schema's"),
    ],
)
def test_columns_that_do_not_fit_are_data_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_frame(SCHEMA, {**make_columns(4), **change})


@pytest.mark.parametrize(
    "record",
    [
        {"text": "a"},
        {"text": "a", "label": "many"},
        {"text": "a", "label": 300},
        {"text": 3, "label": 1},
        {"text": "a", "label": [1, 2]},
        {"text": "a", "label": 1, "more": 1},
    ],
)
def test_records_that_do_not_fit_are_data_errors(record: dict[str, Any]) -> None:
    schema = Schema((Field("text", "string"), Field("label", "tensor", "uint8")))
    with pytest.raises(DataError):
        columns_from_records(schema, [record])


def test_no_records_make_empty_columns() -> None:
    columns = columns_from_records(SCHEMA, [])
    assert count_samples(SCHEMA, columns) == 0
    assert_equal(decode_frame(SCHEMA, encode_frame(SCHEMA, columns), 0), columns)

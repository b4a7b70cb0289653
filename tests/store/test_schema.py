from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rsc.errors import ConfigError, DataError, IntegrityError
from rsc.store.columns import (
    Columns,
    Ragged,
    columns_from_records,
    concatenate_columns,
    count_samples,
    sample_bytes,
    slice_columns,
)
from rsc.store.frame_layout import ALIGNMENT, decode_frame, frame_in_place
from rsc.store.schema import Field, Schema
from tests.store.conftest import SCHEMA, encode_frame, make_columns


def assert_equal(left: Columns, right: Columns) -> None:
    assert left.keys() == right.keys()
    for name, column in left.items():
        other = right[name]
        if isinstance(column, Ragged):
            assert isinstance(other, Ragged)
            np.testing.assert_array_equal(column.values, other.values)
            np.testing.assert_array_equal(column.offsets, other.offsets)
        else:
            np.testing.assert_array_equal(column, other)


@st.composite
def schemas_with_columns(draw: st.DrawFn) -> tuple[Schema, Columns]:
    num_samples = draw(st.integers(0, 5))
    fields: list[Field] = []
    columns: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["tensor", "tokens", "bytes", "string"]))
        dtype = draw(st.sampled_from(["bool", "uint8", "int16", "bfloat16", "float32", "complex128"]))
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3))) if kind == "tensor" else ()
        field = Field(f"f{number}", kind, "uint8" if kind in ("bytes", "string") else dtype, shape)
        fields.append(field)
        if kind == "tensor":
            columns[field.name] = draw(npst.arrays(field.storage, (num_samples, *shape)))
        else:
            rows = [draw(npst.arrays(field.storage, draw(st.integers(0, 6)))) for _ in range(num_samples)]
            columns[field.name] = Ragged.from_list(rows, dtype=field.storage)
    return Schema(tuple(fields)), columns


@settings(max_examples=60, deadline=None)
@given(schemas_with_columns())
def test_frames_round_trip_and_are_canonical(case: tuple[Schema, Columns]) -> None:
    schema, columns = case
    num_samples = count_samples(schema, columns)
    frame = encode_frame(schema, columns)
    decoded = decode_frame(schema, frame, num_samples)
    assert_equal(decoded, columns)
    assert encode_frame(schema, decoded) == frame
    assert frame_in_place(schema, columns) in (None, frame)
    assert Schema.from_dict(schema.to_dict()) == schema


@settings(max_examples=60, deadline=None)
@given(schemas_with_columns(), st.integers(0, 5))
def test_slices_join_to_the_whole(case: tuple[Schema, Columns], cut: int) -> None:
    schema, columns = case
    num_samples = count_samples(schema, columns)
    cut = min(cut, num_samples)
    parts = [slice_columns(columns, 0, cut), slice_columns(columns, cut, num_samples)]
    assert_equal(concatenate_columns(parts), columns)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 4))
def test_decoding_is_total(data: bytes, num_samples: int) -> None:
    with suppress(IntegrityError):
        columns = decode_frame(SCHEMA, data, num_samples)
        assert count_samples(SCHEMA, columns) == num_samples


def test_columns_start_aligned_and_are_views() -> None:
    columns = make_columns(5)
    frame = encode_frame(SCHEMA, columns)
    base = np.frombuffer(frame, np.uint8).ctypes.data
    for column in decode_frame(SCHEMA, frame, 5).values():
        values = column.values if isinstance(column, Ragged) else column
        assert (values.ctypes.data - base) % ALIGNMENT == 0
        assert base <= values.ctypes.data < base + len(frame)


def test_only_a_frame_that_lies_ready_is_taken_in_place() -> None:
    schema = Schema((Field("a", "tensor", "uint16", (32,)),))
    values = np.arange(96, dtype=np.uint16).reshape(3, 32)
    assert frame_in_place(schema, {"a": values}) == encode_frame(schema, {"a": values})
    assert frame_in_place(schema, {"a": values[::-1]}) is None
    assert frame_in_place(schema, {"a": values[:0]}) is None
    narrow = Schema((Field("a", "tensor", "uint16", (31,)),))
    assert frame_in_place(narrow, {"a": np.zeros((3, 31), np.uint16)}) is None
    two = Schema((Field("a", "tensor", "uint16", (32,)), Field("b", "tensor", "uint16", (32,))))
    assert frame_in_place(two, {"a": values, "b": values}) is None


def test_sample_bytes_counts_what_is_stored() -> None:
    columns = make_columns(20)
    captions, tokens = columns["caption"], columns["tokens"]
    assert isinstance(captions, Ragged)
    assert isinstance(tokens, Ragged)
    expected = [6 + 8 + 4 + 4 + len(captions[i]) + 2 * len(tokens[i]) for i in range(20)]
    assert sample_bytes(SCHEMA, columns).tolist() == expected


@pytest.mark.parametrize(
    "field",
    [
        {"name": "", "kind": "tensor"},
        {"name": "a b", "kind": "tensor"},
        {"name": "a", "kind": "picture"},
        {"name": "a", "kind": "tensor", "dtype": "object"},
        {"name": "a", "kind": "string", "dtype": "uint16"},
        {"name": "a", "kind": "tokens", "dtype": "uint16", "shape": (2,)},
        {"name": "a", "kind": "tensor", "shape": (0,)},
        {"name": "a", "kind": "tensor", "shape": (1 << 31,)},
    ],
)
def test_impossible_fields_are_config_errors(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Field(**field)


def test_repeated_names_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="different names"):
        Schema((Field("a", "bytes"), Field("a", "bytes")))


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

from __future__ import annotations

from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import IntegrityError
from rsc.store.format.columns import Columns, Ragged, count_samples
from rsc.store.format.frames import ALIGNMENT, decode_frame, frame_in_place
from rsc.store.format.schema import Field, Schema
from tests.store.conftest import SCHEMA, assert_equal, encode_frame, make_columns, schemas_with_columns


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

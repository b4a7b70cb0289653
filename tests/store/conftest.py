"""Keys and small data sets for the store's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rsc.keys.envelope import Envelope, data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.secret import SecretKey
from rsc.store.format.columns import Columns, Ragged, columns_from_records
from rsc.store.format.frames import encode_frame_into, frame_size
from rsc.store.format.schema import Field, Schema

SCHEMA = Schema(
    (
        Field("image", kind="tensor", dtype="uint8", shape=(3, 2)),
        Field("label", kind="tensor", dtype="int64"),
        Field("caption", kind="string"),
        Field("tokens", kind="tokens", dtype="uint16"),
    )
)


def make_columns(num_samples: int, *, seed: int = 0) -> Columns:
    """Samples of SCHEMA; captions and tokens of length 0 included."""
    rng = np.random.default_rng(seed)
    records = [
        {
            "image": rng.integers(0, 256, (3, 2), np.uint8),
            "label": number,
            "caption": "caption " * int(rng.integers(0, 4)),
            "tokens": rng.integers(0, 65536, int(rng.integers(0, 9)), np.uint16),
        }
        for number in range(num_samples)
    ]
    return columns_from_records(SCHEMA, records)


@pytest.fixture
def key() -> Iterator[SecretKey]:
    with SecretKey.from_buffer(bytearray(range(32))) as secret:
        yield secret


@pytest.fixture
def enveloped(tmp_path: Path) -> Iterator[tuple[Envelope, SecretKey]]:
    """A data key of set `posts` and its envelope."""
    provider = LocalKeyProvider(tmp_path / "keys")
    kek_id = data_kek_id("posts", period="2026-11")
    provider.create(kek_id, period="2026-11")
    envelope, secret = new_envelope(provider, kek_id=kek_id, context=data_key_context("posts"))
    with secret:
        yield envelope, secret


def encode_frame(schema: Schema, columns: Columns) -> bytearray:
    """`encode_frame_into` a new buffer of the right size."""
    buffer = bytearray(frame_size(schema, columns))
    encode_frame_into(schema, columns, buffer)
    return buffer


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

"""Small encrypted splits on disk, written and read by the real store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore
from rsc.store.bulk.local import LocalStore
from rsc.store.format.columns import Columns, columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.split_writer import SplitWriter
from rsc.store.splits import SplitPlace, SplitReader

MakeSplit = Callable[..., SplitReader]

MIXED = Schema(
    (
        Field("number", "tensor", "int64"),
        Field("image", "tensor", "uint8", (3, 2)),
        Field("text", "string"),
        Field("tokens", "tokens", "uint16"),
    )
)


def mixed_record(number: int) -> dict[str, Any]:
    """A sample whose every field can be computed from its number; lengths vary, some are empty."""
    return {
        "number": number,
        "image": np.full((3, 2), number % 256, np.uint8),
        "text": f"sample {number} ".encode() * (number % 7),
        "tokens": np.arange(number % 5, dtype=np.uint16) + number % 60_000,
    }


def mixed_columns(num_samples: int) -> Columns:
    return columns_from_records(MIXED, [mixed_record(n) for n in range(num_samples)])


@pytest.fixture
def make_split(tmp_path: Path) -> MakeSplit:
    """make_split(schema, columns, frame_bytes=..., shard_bytes=...) -> an open SplitReader."""
    made = 0

    def make(
        schema: Schema,
        columns: Columns,
        *,
        frame_bytes: int,
        shard_bytes: int,
        store: BulkStore | None = None,
    ) -> SplitReader:
        nonlocal made
        made += 1
        key = SecretKey.generate()
        place = SplitPlace(
            store or LocalStore(tmp_path), folder=f"v{made}", name="test", version_id="0", split="train"
        )
        writer = SplitWriter(place, schema=schema, key=key, frame_bytes=frame_bytes, shard_bytes=shard_bytes)
        writer.append(columns)
        return SplitReader(place, schema=schema, totals=writer.finish(), key=key)

    return make


@pytest.fixture
def numbers(make_split: MakeSplit) -> SplitReader:
    """1000 samples whose only field is their number: 25 frames of 40, 5 frames a shard."""
    schema = Schema((Field("number", "tensor", "int64"),))
    columns: Columns = {"number": np.arange(1000, dtype=np.int64)}
    return make_split(schema, columns, frame_bytes=320, shard_bytes=2000)


@pytest.fixture
def mixed(make_split: MakeSplit) -> SplitReader:
    """700 samples of fixed and variable fields, about 12 a frame, in several shards."""
    return make_split(MIXED, mixed_columns(700), frame_bytes=1024, shard_bytes=10_000)

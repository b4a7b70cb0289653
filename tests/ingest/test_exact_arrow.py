"""Arrow, Parquet and batches in memory: what is read back is what was written, or refused."""

from __future__ import annotations

import base64
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.arrays import open_columns
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.tables.typed_columns import to_store
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Schema

from .conftest import read_all

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PLAIN = ImportOptions()
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, 0]))


EPOCH = datetime.datetime(1970, 1, 1)


def instant(count: int, unit: str) -> str:
    """A count since 1970 as Arrow writes it; years beyond 9999 are left to Arrow."""
    per_second, digits = {"s": (1, 0), "ms": (10**3, 3), "us": (10**6, 6), "ns": (10**9, 9)}[unit]
    seconds, rest = divmod(count, per_second)
    text = (EPOCH + datetime.timedelta(seconds=seconds)).isoformat(sep=" ")
    return f"{text}.{rest:0{digits}d}" if digits else text


def instants(unit: str) -> st.SearchStrategy[int]:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return st.integers(max(-(2**63) + 1, -62_000_000_000 * scale), min(2**63 - 1, 250_000_000_000 * scale))


def decimal_text(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.0001")))


def plain_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def same(value: Any) -> Any:
    return value


CASES: dict[str, tuple[Any, st.SearchStrategy[Any], Any]] = {
    **{
        f"{'' if signed else 'u'}int{bits}": (
            getattr(pa, f"{'' if signed else 'u'}int{bits}")(),
            whole(bits, signed=signed),
            same,
        )
        for bits in (8, 16, 32, 64)
        for signed in (True, False)
    },
    "float32": (pa.float32(), st.floats(width=32), same),
    "float64": (pa.float64(), st.floats(), same),
    "bool": (pa.bool_(), st.booleans(), int),
    "string": (pa.string(), words, same),
    "large_string": (pa.large_string(), words, same),
    "binary": (pa.binary(), st.binary(max_size=6), same),
    "fixed_binary": (pa.binary(3), st.binary(min_size=3, max_size=3), same),
    "date32": (pa.date32(), st.dates(), str),
    **{
        f"timestamp {unit} {zone}": (
            pa.timestamp(unit, tz=zone),
            instants(unit),
            lambda count, unit=unit, zone=zone: instant(count, unit) + ("Z" if zone else ""),
        )
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "Europe/Berlin")
    },
    "time64": (pa.time64("ns"), st.integers(0, 86_399_999_999_999), lambda v: instant(v, "ns")[11:]),
    "duration": (pa.duration("us"), st.integers(-(2**60), 2**60), lambda v: f"{v} us"),
    "decimal": (pa.decimal128(20, 4), st.decimals(-(10**10), 10**10, places=4), decimal_text),
    "list": (pa.list_(pa.int32()), st.lists(whole(32, signed=True), max_size=3), same),
    "large_list": (pa.large_list(pa.float64()), st.lists(st.floats(), max_size=3), same),
    "fixed_list": (pa.list_(pa.int16(), 2), st.lists(whole(16, signed=True), min_size=2, max_size=2), same),
    "list of lists": (
        pa.list_(pa.list_(pa.int64())),
        st.lists(st.lists(whole(64, signed=True), max_size=2), max_size=3),
        json.dumps,
    ),
    "list of text": (pa.list_(pa.string()), st.lists(words, max_size=3), plain_json),
    "struct": (
        pa.struct([("a", pa.int64()), ("b", pa.binary())]),
        st.fixed_dictionaries({"a": whole(64, signed=True), "b": st.binary(max_size=4)}),
        lambda v: json.dumps({"a": v["a"], "b": base64.b64encode(v["b"]).decode()}),
    ),
    "map": (
        pa.map_(pa.string(), pa.int64()),
        st.lists(st.tuples(words, whole(64, signed=True)), max_size=2),
        lambda v: json.dumps([list(pair) for pair in v], ensure_ascii=False),
    ),
}  # fmt: skip


def is_equal(found: Any, wanted: Any) -> bool:
    found = found.tolist() if isinstance(found, np.ndarray | np.generic) else found
    if isinstance(found, list):
        return len(found) == len(wanted) and all(map(is_equal, found, wanted))
    return bool(found == wanted or (found != found and wanted != wanted)) or (
        isinstance(found, str) and isinstance(wanted, int) and found == str(wanted)
    )


def storable(case: str, container: str) -> bool:
    """Parquet has no seconds: it stores milliseconds."""
    return not (container == "parquet" and case.startswith("timestamp s "))


@pytest.mark.parametrize("case", CASES)
def test_a_column(case: str, tmp_path: Path) -> None:
    kind, values, expected = CASES[case]
    containers = st.sampled_from([name for name in ("parquet", "arrow", "feather") if storable(case, name)])

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(values, values, st.none()), min_size=1, max_size=6), st.booleans(), containers)
    def check(column: list[Any], is_sliced: bool, container: str) -> None:
        table = pa.table({"v": pa.array(column, kind), "k": pa.array(range(len(column)))})
        if is_sliced and len(column) > 1:
            table, column = table.slice(1), column[1:]
        path = tmp_path / f"a.{container}"
        write(table, path, container=container)
        require_exact(path, column, expected)

    check()


def write(table: Any, path: Path, *, container: str) -> None:
    if container == "parquet":
        parquet.write_table(table, path, row_group_size=2, store_schema=True)
        return
    new = pa.ipc.new_stream if container == "arrow" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def require_exact(path: Path, column: list[Any], expected: Any) -> None:
    source = open_source(path, options=PLAIN)
    try:
        rows, bad = read_all(source)
        missing = {source.fields()[0].missing, source.surveyed().fields()[0].missing} - {None}
    except DataError:
        raise AssertionError("a column of one type is never refused") from None
    found = {row["#"]: row.get("v", row.get("text")) for row in rows}
    assert sorted([*found, *(record.record for record in bad)]) == list(range(len(column)))
    for record, value in found.items():
        if column[record] is None:
            assert value in missing or value == "" or value != value
        else:
            assert is_equal(value, expected(column[record])), (value, column[record])
            assert not isinstance(value, int | np.integer) or value not in missing


arrays = st.one_of(
    st.lists(whole(64, signed=True), min_size=1, max_size=4).map(lambda v: np.array(v, np.int64)),
    st.lists(whole(64, signed=False), min_size=1, max_size=4).map(lambda v: np.array(v, np.uint64)),
    st.lists(whole(8, signed=False), min_size=1, max_size=4).map(lambda v: np.array(v, np.uint8)),
    st.lists(st.floats(), min_size=1, max_size=4).map(lambda v: np.array(v, np.float64)),
    st.lists(st.floats(width=16), min_size=1, max_size=4).map(lambda v: np.array(v, np.float16)),
    st.lists(st.booleans(), min_size=1, max_size=4).map(lambda v: np.array(v)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_batches(batches: list[Any], is_list: bool, is_ragged: bool) -> None:
    """Equal, or refused as a whole."""
    columns = [{"v": Ragged(a, np.array([0, len(a)])) if is_ragged else a} for a in batches]
    try:
        source = open_columns(columns if is_list else iter(columns), options=PLAIN)
        chunks = [chunk for part in source.parts(part_bytes=1) for chunk in source.read(part)]
    except DataError:
        return
    found: list[Any] = []
    for chunk in chunks:
        column = to_store(Schema(source.fields()), chunk.columns)["v"]
        found += [column[row].tolist() for row in range(len(column))]
    wanted = [a.tolist() for a in batches] if is_ragged else [v for a in batches for v in a.tolist()]
    assert len(found) == len(wanted)
    assert all(map(is_equal, found, wanted))

"""Every format of tables and text, cut at many places: refused, or the import says that something is odd."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.source import NarrowTypes, Source

PLAIN = ImportOptions()
PLACES = 200
ROWS = [{"id": 1000 + number, "text": f"post {number} of an author", "x": number / 3} for number in range(40)]
JSON_LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = ("id,text,x\n" + "".join(f'{row["id"]},"{row["text"]}",{row["x"]}\n' for row in ROWS)).encode()

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress,
}  # fmt: skip


def outcome(source: Source) -> tuple[int, bool]:
    """Records read, and whether anything was said about them. An import asks for the fields first."""
    source.fields()
    count, is_told = 0, False
    for part in source.parts(part_bytes=1 << 20):
        for chunk in source.read(part):
            count += chunk.num_records
            is_told |= bool(chunk.notes or chunk.bad)
    return count, is_told


def read(path: Path) -> tuple[int, bool]:
    source = open_source(path, options=PLAIN)
    try:
        return outcome(source)
    except NarrowTypes:
        return outcome(source.surveyed())


def places(size: int) -> list[int]:
    return sorted({size * step // PLACES for step in range(1, PLACES)} - {0, size})


def require_told(path: Path, whole: bytes, *, ends: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """`ends` are cuts after which a file is whole again: between two lines, nothing can tell."""
    path.write_bytes(whole)
    assert read(path) == (len(ROWS), False)
    for place in places(len(whole)):
        path.write_bytes(whole[:place])
        try:
            _, is_told = read(path)
        except DataError:
            continue
        assert is_told or place in ends, f"{path.name} cut at {place} of {len(whole)}"


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(("ending", "data"), [(".jsonl", JSON_LINES), (".csv", CSV)])
def test_lines(ending: str, data: bytes, packing: str, tmp_path: Path) -> None:
    line_ends = {place + 1 for place, byte in enumerate(data) if byte == 10}
    require_told(
        tmp_path / f"a{ending}{packing}", PACKED[packing](data), ends=line_ends if not packing else set()
    )


@pytest.mark.parametrize("packing", PACKED)
def test_a_json_list(packing: str, tmp_path: Path) -> None:
    require_told(tmp_path / f"a.json{packing}", PACKED[packing](json.dumps(ROWS, indent=1).encode()))


@pytest.mark.parametrize("packing", PACKED)
def test_text(packing: str, tmp_path: Path) -> None:
    data = "".join(f"{row['text']}\n" for row in ROWS).encode()
    options = ImportOptions(records="lines")
    line_ends = {place + 1 for place, byte in enumerate(data) if byte == 10} if not packing else set()
    whole, path = PACKED[packing](data), tmp_path / f"a.txt{packing}"
    for place in places(len(whole)):
        path.write_bytes(whole[:place])
        try:
            _, is_told = outcome(open_source(path, options=options))
        except DataError:
            continue
        assert is_told or place in line_ends


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".feather"])
def test_arrow(ending: str, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_pylist(ROWS)
    path = tmp_path / f"a{ending}"
    if ending == ".parquet":
        parquet.write_table(table, path, row_group_size=8)
    else:
        new = pa.ipc.new_stream if ending == ".arrow" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    require_told(path, path.read_bytes())


def test_an_arrow_stream_cut_between_batches_or_joined(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table, path = pa.Table.from_pylist(ROWS), tmp_path / "a.arrow"
    sizes = []
    with pa.OSFile(str(path), "wb") as sink:
        writer = pa.ipc.new_stream(sink, table.schema)
        for batch in table.to_batches(max_chunksize=4):
            writer.write_batch(batch)
            sizes.append(sink.tell())
        writer.close()
    whole = path.read_bytes()
    for size in sizes:
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="no end mark"):
            read(path)
    path.write_bytes(whole + whole)
    with pytest.raises(DataError, match="bytes after its end"):
        read(path)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_bytes_after_a_packed_stream(packing: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(PACKED[packing](JSON_LINES) + b"and more")
    with pytest.raises(DataError, match="is not a whole"):
        read(path)
    path.write_bytes(PACKED[packing](JSON_LINES) * 2)
    assert read(path) == (2 * len(ROWS), False)

"""Parquet files, and Hugging Face data sets as `save_to_disk` writes them (Arrow files). Needs pyarrow.

| Arrow type                          | field                                    |
|-------------------------------------|------------------------------------------|
| string                              | string; null becomes "" and is counted   |
| integers, floats, bool              | number; a null makes the row bad, or NaN |
| binary                              | bytes                                    |
| struct of bytes and path (HF image) | image or audio bytes                     |
| fixed size list of numbers          | tensor of that size                      |
| list of numbers                     | tokens                                   |
| everything else                     | string holding its JSON                  |

Numbers that stand for class names (HF ClassLabel) are stored as the names.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.decode import MediaCodec
from rsc.ingest.fields import chosen_names, stored_names
from rsc.ingest.source import BadRecord, Chunk, Part, Values, own_name
from rsc.ingest.splits import split_of_file, split_of_name
from rsc.store.schema import Field

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 1024
HF_STATE, HF_DICT = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class _Column:
    source_name: str
    field: Field
    class_names: Sequence[str] | None = None
    codec: MediaCodec | None = None


class _File(Protocol):
    """One file of tables: how many pieces, and the batches of a range of them."""

    @property
    def path(self) -> Path: ...

    @property
    def split(self) -> str | None: ...

    def schema(self) -> pyarrow.Schema: ...

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(rows, bytes) of each piece."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]: ...


@dataclass(frozen=True)
class ParquetFile:
    """Pieces are row groups."""

    path: Path
    split: str | None

    def schema(self) -> pyarrow.Schema:
        return self._open().schema_arrow

    def pieces(self) -> Iterator[tuple[int, int]]:
        metadata = self._open().metadata
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            yield group.num_rows, group.total_byte_size

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        with _told(self.path, what="Parquet"):
            groups = list(range(start, stop))
            yield from self._open().iter_batches(batch_size=_BATCH_ROWS, row_groups=groups)

    def _open(self) -> Any:
        with _told(self.path, what="Parquet"):
            return _pyarrow("pyarrow.parquet").ParquetFile(self.path)


@dataclass(frozen=True)
class ArrowFile:
    """An Arrow stream on disk; pieces are its record batches."""

    path: Path
    split: str | None

    def schema(self) -> pyarrow.Schema:
        return self._open().schema

    def pieces(self) -> Iterator[tuple[int, int]]:
        with _told(self.path, what="Arrow"):
            for batch in self._open():
                yield batch.num_rows, batch.nbytes

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        with _told(self.path, what="Arrow"):
            for index, batch in enumerate(self._open()):
                if index >= stop:
                    return
                if index >= start:
                    yield from (batch.slice(at, _BATCH_ROWS) for at in range(0, batch.num_rows, _BATCH_ROWS))

    def _open(self) -> Any:
        with _told(self.path, what="Arrow"):
            arrow = _pyarrow("pyarrow")
            return arrow.ipc.open_stream(arrow.memory_map(str(self.path)))


@dataclass(frozen=True)
class MemoryTable:
    """A table in memory; pieces are its record batches."""

    table: Any
    split: str | None = None

    @property
    def path(self) -> Path:
        return Path("table")

    def schema(self) -> pyarrow.Schema:
        return self.table.schema

    def pieces(self) -> Iterator[tuple[int, int]]:
        for batch in self._batches():
            yield batch.num_rows, batch.nbytes

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        yield from self._batches()[start:stop]

    def _batches(self) -> list[pyarrow.RecordBatch]:
        if not hasattr(self.table, "to_batches"):
            return [self.table]
        return list(self.table.to_batches(max_chunksize=_BATCH_ROWS))


@dataclass
class ArrowTables:
    """Reader of tables in files of one schema."""

    kind: str
    tables: Sequence[_File]
    options: ImportOptions
    also_read: Sequence[Path] = field(default=())

    def fields(self) -> tuple[Field, ...]:
        return tuple(column.field for column in self._columns)

    def media(self) -> dict[str, str]:
        return {c.field.name: c.codec.medium for c in self._columns if c.codec is not None}

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(table.split for table in self.tables if table.split))

    def files(self) -> list[Path]:
        paths = [table.path for table in self.tables if not isinstance(table, MemoryTable)]
        return [*self.also_read, *paths]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Neighbouring pieces of one file of together about `part_bytes`."""
        number = first_record = 0
        for index, table in enumerate(self.tables):
            if not table.schema().equals(self.tables[0].schema()):
                raise DataError(f"{table.path.name} has other columns than {self.tables[0].path.name}")
            start = rows = size = 0
            sizes = list(table.pieces())
            for piece, (piece_rows, piece_bytes) in enumerate(sizes):
                rows, size = rows + piece_rows, size + piece_bytes
                if size >= part_bytes or piece == len(sizes) - 1:
                    span = (index, start, piece + 1)
                    yield Part(number, first_record=first_record, size_bytes=size, span=span)
                    number, first_record, start = number + 1, first_record + rows, piece + 1
                    rows = size = 0

    def read(self, part: Part) -> Iterator[Chunk]:
        index, start, stop = part.span
        table = self.tables[index]
        first_row = part.first_record
        for batch in table.batches(start, stop):
            yield self._chunk(batch, first_row=first_row, table=table)
            first_row += batch.num_rows

    def _chunk(self, batch: pyarrow.RecordBatch, *, first_row: int, table: _File) -> Chunk:
        bad: dict[int, str] = {}
        notes: Counter[str] = Counter()
        columns = {
            column.field.name: _values(batch.column(column.source_name), column, bad=bad, notes=notes)
            for column in self._columns
        }
        keep = np.array([row for row in range(batch.num_rows) if row not in bad], dtype=np.int64)
        if bad:
            columns = {
                name: values[keep]
                if isinstance(values, np.ndarray)
                else [values[row] for row in keep.tolist()]
                for name, values in columns.items()
            }
        return Chunk(
            columns=columns,
            numbers=(keep + first_row).astype(np.uint64),
            size_bytes=batch.nbytes,
            bad=[
                BadRecord(first_row + row, f"{table.path.name} row {first_row + row}", reason)
                for row, reason in sorted(bad.items())
            ],
            split=table.split,
            notes=dict(notes),
        )

    @cached_property
    def _columns(self) -> list[_Column]:
        schema = self.tables[0].schema()
        names = chosen_names(schema.names, options=self.options)
        types = _pyarrow("pyarrow").types
        texts = [
            n
            for n in names
            if types.is_string(schema.field(n).type) or types.is_large_string(schema.field(n).type)
        ]
        stored = stored_names(names, texts=texts, options=self.options)
        features = _hf_features(schema)
        return [
            _column(schema.field(name), stored[name], features.get(name, {}), self.options) for name in names
        ]


def open_parquet(path: Path, *, options: ImportOptions) -> ArrowTables:
    """One file, or every `.parquet` below a folder; `train-...` and `test-...` in names are splits."""
    paths = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not paths:
        raise DataError(f"{path} holds no .parquet files")
    splits = [split_of_file(p) for p in paths]
    known = splits if len(paths) > 1 and all(splits) else [None] * len(paths)
    tables = [ParquetFile(p, split) for p, split in zip(paths, known, strict=True)]
    return ArrowTables("parquet", tables, options)


def open_hf(path: Path, *, options: ImportOptions) -> ArrowTables:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` made."""
    if (path / HF_DICT).exists():
        names = json.loads((path / HF_DICT).read_bytes())["splits"]
        folders: list[tuple[Path, str | None]] = [(path / name, split_of_name(name)) for name in names]
        index = [path / HF_DICT]
    else:
        folders, index = [(path, None)], []
    tables: list[ArrowFile] = []
    for folder, split in folders:
        try:
            files = json.loads((folder / HF_STATE).read_bytes())["_data_files"]
        except (OSError, ValueError, KeyError):
            raise DataError(f"{folder} is not a data set saved by Hugging Face datasets") from None
        index.append(folder / HF_STATE)
        tables += [ArrowFile(folder / own_name(file["filename"]), split) for file in files]
    return ArrowTables("hf", tables, options, also_read=tuple(index))


@contextmanager
def _told(path: Path, *, what: str) -> Iterator[None]:
    """A damaged page is an OSError of the codec, a damaged footer an ArrowInvalid."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    except (OSError, _pyarrow("pyarrow").ArrowException) as error:
        raise DataError(
            f"{path.name} is not a whole {what} file: {error}", hint="fetch it again, or write it anew"
        ) from None


def _pyarrow(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            "Parquet and Arrow files need pyarrow", hint="pip install 'openrsc[parquet]'"
        ) from None


def _hf_features(schema: pyarrow.Schema) -> dict[str, Any]:
    """What Hugging Face datasets wrote about its columns into the schema's metadata."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    features: dict[str, Any] = json.loads(metadata).get("info", {}).get("features", {})
    return features


def _column(source: pyarrow.Field, name: str, feature: dict[str, Any], options: ImportOptions) -> _Column:
    types, kind = _pyarrow("pyarrow").types, source.type
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        return _Column(source.name, Field(name, "string"), class_names=feature["names"])
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        codec = MediaCodec("audio" if feature.get("_type") == "Audio" else "image", options)
        return _Column(source.name, codec.field(name), codec=codec)
    if types.is_boolean(kind):
        return _Column(source.name, Field(name, "tensor", "uint8"))
    if _is_number(kind):
        return _Column(source.name, Field(name, "tensor", np.dtype(kind.to_pandas_dtype()).name))
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _Column(source.name, Field(name, "bytes"))
    if types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        dtype = np.dtype(kind.value_type.to_pandas_dtype()).name
        return _Column(source.name, Field(name, "tensor", dtype, (kind.list_size,)))
    if (types.is_list(kind) or types.is_large_list(kind)) and _is_number(kind.value_type):
        return _Column(source.name, Field(name, "tokens", np.dtype(kind.value_type.to_pandas_dtype()).name))
    return _Column(source.name, Field(name, "string"))


def _is_number(kind: Any) -> bool:
    types = _pyarrow("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _values(values: pyarrow.Array, column: _Column, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    item = column.field
    if column.codec is not None:
        return _media(values, column.codec, bad=bad, notes=notes)
    if item.kind == "string":
        return _strings(values, column, notes=notes)
    nulls = (
        np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist() if values.null_count else []
    )
    if item.kind == "tensor" and item.dtype.startswith("float") and not item.shape and nulls:
        notes[f"field {item.name!r} missing: stored as NaN"] += len(nulls)
        nulls = []
    for row in nulls:
        bad.setdefault(row, f"field {item.name!r}: found nothing")
    if item.kind in ("bytes", "tokens"):
        empty: Any = b"" if item.kind == "bytes" else []
        return [empty if value is None else value for value in values.to_pylist()]
    if item.shape:
        flat = values.flatten() if not nulls else values.fill_null([0] * item.shape[0]).flatten()
        return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=item.storage).reshape(-1, *item.shape)
    filled = (
        values.fill_null(np.nan if item.dtype.startswith("float") else 0) if values.null_count else values
    )
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(item.storage)


def _strings(values: pyarrow.Array, column: _Column, *, notes: Counter[str]) -> list[str]:
    if values.null_count:
        notes[f"field {column.field.name!r} missing: stored as empty text"] += values.null_count
    names = column.class_names
    if names is not None:
        return ["" if value is None else names[value] for value in values.to_pylist()]
    return [_text(value) for value in values.to_pylist()]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _media(values: pyarrow.Array, codec: MediaCodec, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    """Files, or their pixels or samples; a row that does not decode is bad and holds a blank."""
    blank: Any = b""
    item = codec.field("blank")
    if item.kind != "bytes":
        blank = np.zeros(item.shape or (0,), item.storage)
    found = []
    for row, value in enumerate(values.to_pylist()):
        try:
            if value is None or value["bytes"] is None:
                raise DataError(f"no {codec.medium} bytes in it")
            found.append(codec.value(value["bytes"], notes=notes))
        except DataError as error:
            bad.setdefault(row, error.message)
            found.append(blank)
    return found

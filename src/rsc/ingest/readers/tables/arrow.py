"""Parquet files, and Hugging Face data sets as `save_to_disk` writes them (Arrow files). Needs pyarrow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord, Chunk, Part, own_name
from rsc.ingest.readers.split_names import split_of_file, splits_of_names
from rsc.ingest.readers.tables.arrow_values import ArrowColumn, column_values, columns_of, import_pyarrow
from rsc.ingest.readers.tables.typed_columns import take
from rsc.store.format.schema import Field

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 1024
HF_STATE, HF_DICT = "state.json", "dataset_dict.json"


class _Span(NamedTuple):
    """Pieces [start, stop) of one table, from its row `first_row` on."""

    table: int
    start: int
    stop: int
    first_row: int


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
            return import_pyarrow("pyarrow.parquet").ParquetFile(self.path)


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
            arrow = import_pyarrow("pyarrow")
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
                raise DataError(
                    f"{table.path.name} has other columns than {self.tables[0].path.name}",
                    hint="import it from a folder of its own",
                )
            start = rows = size = first_row = 0
            sizes = list(table.pieces())
            for piece, (piece_rows, piece_bytes) in enumerate(sizes):
                rows, size = rows + piece_rows, size + piece_bytes
                if size >= part_bytes or piece == len(sizes) - 1:
                    span = _Span(index, start, piece + 1, first_row)
                    yield Part(number, first_record=first_record, size_bytes=size, span=span)
                    number, first_record, start = number + 1, first_record + rows, piece + 1
                    first_row, rows, size = first_row + rows, 0, 0

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for a file that is damaged."""
        table, row = self.tables[part.span.table], part.span.first_row
        for batch in table.batches(part.span.start, part.span.stop):
            first_record = part.first_record + row - part.span.first_row
            yield self._chunk(batch, table=table, first_row=row, first_record=first_record)
            row += batch.num_rows

    def _chunk(self, batch: pyarrow.RecordBatch, *, table: _File, first_row: int, first_record: int) -> Chunk:
        bad: dict[int, str] = {}
        notes: Counter[str] = Counter()
        columns = {
            column.field.name: column_values(batch.column(column.source_name), column, bad=bad, notes=notes)
            for column in self._columns
        }
        keep = np.array([row for row in range(batch.num_rows) if row not in bad], dtype=np.int64)
        return Chunk(
            columns=take(columns, keep) if bad else columns,
            numbers=(keep + first_record).astype(np.uint64),
            size_bytes=batch.nbytes,
            bad=[
                BadRecord(first_record + row, f"{table.path.name} row {first_row + row + 1}", reason)
                for row, reason in sorted(bad.items())
            ],
            split=table.split,
            notes=dict(notes),
        )

    @cached_property
    def _columns(self) -> list[ArrowColumn]:
        return columns_of(self.tables[0].schema(), options=self.options)


def open_parquet(path: Path, *, options: ImportOptions) -> ArrowTables:
    """One file, or every `.parquet` below a folder; `train-...` and `test-...` in names are splits."""
    paths = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not paths:
        raise DataError(
            f"{path} holds no .parquet files", hint="give the folder that does, or another --format"
        )
    splits = [split_of_file(p) for p in paths]
    known = splits if len(paths) > 1 and all(splits) else [None] * len(paths)
    tables = [ParquetFile(p, split) for p, split in zip(paths, known, strict=True)]
    return ArrowTables("parquet", tables, options)


def open_hf(path: Path, *, options: ImportOptions) -> ArrowTables:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` made."""
    if (path / HF_DICT).exists():
        named = splits_of_names(_listed_splits(path / HF_DICT))
        folders: list[tuple[Path, str | None]] = [(path / name, split) for name, split in named.items()]
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


def _listed_splits(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())["splits"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise DataError(f"{path.name} does not list the splits of a data set") from None


@contextmanager
def _told(path: Path, *, what: str) -> Iterator[None]:
    """A damaged page is an OSError of the codec, a damaged footer an ArrowInvalid."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    except (OSError, import_pyarrow("pyarrow").ArrowException) as error:
        raise DataError(
            f"{path.name} is not a whole {what} file: {error}", hint="fetch it again, or write it anew"
        ) from None

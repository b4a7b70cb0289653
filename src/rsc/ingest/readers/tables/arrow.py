"""Parquet and Arrow files, alone or in folders, and Hugging Face data sets on disk. Needs pyarrow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Values, own_name
from rsc.ingest.readers.split_names import SPLIT_NAMES, splits_of_files, splits_of_names
from rsc.ingest.readers.tables.arrow_files import ArrowFile, ParquetFile, TableFile
from rsc.ingest.readers.tables.arrow_types import ArrowColumn, WholeFacts, columns_of, import_pyarrow
from rsc.ingest.readers.tables.arrow_values import column_values
from rsc.ingest.readers.tables.typed_columns import take
from rsc.store.format.schema import Field

if TYPE_CHECKING:
    import pyarrow

HF_STATE, HF_DICT = "state.json", "dataset_dict.json"
PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
_TABLE_FORMATS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata": "Iceberg"}
"""Folders whose presence means that a log says which of the Parquet files count."""

_PARTITION = re.compile(r"([^=]+)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class _PieceSpan(NamedTuple):
    """Pieces [start, stop) of one table, from its row `first_row` on."""

    table: int
    start: int
    stop: int
    first_row: int


@dataclass
class ArrowTables:
    """Reader of tables in files with the same columns."""

    kind: str
    tables: Sequence[TableFile]
    options: ImportOptions
    also_read: Sequence[Path] = field(default=())
    known: Mapping[str, WholeFacts] | None = None
    """What the columns of whole numbers hold, once the source was surveyed."""
    is_once: bool = False
    """Whether the tables can be read once only, and so cannot be surveyed."""

    def fields(self) -> tuple[Field, ...]:
        return tuple(column.field for column in self._columns)

    def media(self) -> dict[str, str]:
        return {c.field.name: c.codec.medium for c in self._columns if c.codec is not None}

    def numeric_texts(self) -> tuple[str, ...]:
        return tuple(column.field.name for column in self._columns if column.is_numeric_text)

    def names(self) -> dict[str, str]:
        return {c.field.name: c.source_name for c in self._columns if c.field.name != c.source_name}

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(table.split for table in self.tables if table.split))

    def taken(self) -> list[tuple[str, str]]:
        return []

    def files(self) -> list[Path]:
        paths = [table.path for table in self.tables if isinstance(table, ParquetFile | ArrowFile)]
        return [*self.also_read, *paths]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Neighbouring pieces of one file of together about `part_bytes`."""
        number = first_record = 0
        if self.is_once:
            yield from self._streamed_parts()
        for index, table in enumerate(self.tables if not self.is_once else ()):
            start = rows = size = first_row = 0
            sizes = list(table.pieces())
            for piece, (piece_rows, piece_bytes) in enumerate(sizes):
                rows, size = rows + piece_rows, size + piece_bytes
                if size >= part_bytes or piece == len(sizes) - 1:
                    span = _PieceSpan(index, start, piece + 1, first_row)
                    yield Part(number, first_record=first_record, size_bytes=size, span=span)
                    number, first_record, start = number + 1, first_record + rows, piece + 1
                    first_row, rows, size = first_row + rows, 0, 0

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for a file that is damaged, and NarrowTypes."""
        if self.is_once:
            yield self._chunk(part.span, table=self.tables[0], first_row=0, first_record=part.first_record)
            return
        table, row = self.tables[part.span.table], part.span.first_row
        for batch in table.batches(part.span.start, part.span.stop):
            first_record = part.first_record + row - part.span.first_row
            yield self._chunk(batch, table=table, first_row=row, first_record=first_record)
            row += batch.num_rows

    def name_of(self, part: Part) -> str:
        path: Path = self.tables[0 if self.is_once else part.span.table].path
        return path.name

    def surveyed(self) -> ArrowTables:
        """With what every column of whole numbers or truths holds."""
        known: dict[str, WholeFacts] = {}
        for table in self.tables:
            for batch in table.batches(0, len(list(table.pieces()))):
                for name in batch.schema.names:
                    found = _whole_facts(batch.column(name))
                    if found is not None:
                        known[name] = known.get(name, WholeFacts()).merged(found)
        return replace(self, known=known)

    def _streamed_parts(self) -> Iterator[Part]:
        first_record = 0
        for number, batch in enumerate(self.tables[0].batches(0, 0)):
            yield Part(number, first_record=first_record, size_bytes=batch.nbytes, span=batch)
            first_record += batch.num_rows

    def _chunk(
        self, batch: pyarrow.RecordBatch, *, table: TableFile, first_row: int, first_record: int
    ) -> Chunk:
        bad: dict[int, str] = {}
        notes: Counter[str] = Counter()
        columns: dict[str, Values] = {}
        for column in self._columns:
            values = _values(batch, column.source_name, table=table)
            columns[column.field.name] = column_values(
                values, column, can_widen=self.known is None and not self.is_once, bad=bad, notes=notes
            )
        keep = np.array([row for row in range(batch.num_rows) if row not in bad], dtype=np.int64)
        return Chunk(
            columns=take(columns, keep) if bad else columns,
            numbers=(keep + first_record).astype(np.uint64),
            size_bytes=batch.nbytes,
            bad=[
                BadRecord(
                    first_record + row,
                    f"{table.path.name} row {first_row + row + 1}",
                    reason,
                    raw=_raw(batch.slice(row, 1)),
                )
                for row, reason in sorted(bad.items())
            ],
            split=table.split,
            notes=dict(notes),
        )

    @cached_property
    def _columns(self) -> list[ArrowColumn]:
        schemas = {str(number): _with_constants(table) for number, table in enumerate(self.tables)}
        names = {str(number): table.path.name for number, table in enumerate(self.tables)}
        distinct: dict[str, pyarrow.Schema] = {}
        for number, schema in schemas.items():
            if not any(schema.equals(other) for other in distinct.values()):
                distinct[
                    names[number] if names[number] not in distinct else f"{names[number]} ({number})"
                ] = schema
        constants = self.tables[0].constants
        return columns_of(distinct, constants=constants, known=self.known, options=self.options)


def open_parquet(path: Path, *, options: ImportOptions) -> ArrowTables:
    """One file, or every Parquet file below a folder but hidden ones (names that begin with `.` or `_`).

    Names of files and folders that begin with a split (`train-...`, `test/`) fill it, and folders such as
    `label=dog` are a column. Raises DataError for a folder whose files are not all named so, or that is
    managed by a table format.
    """
    if path.is_file():
        return ArrowTables("parquet", [ParquetFile(path, None)], options)
    _refuse_table_formats(path)
    paths = files_below(path, suffixes=PARQUET_SUFFIXES)
    if not paths:
        raise DataError(
            f"{path} holds no .parquet files", hint="give the folder that does, or another --format"
        )
    places = [_place(found, root=path) for found in paths]
    splits = [found.split for found in places]
    if not all(splits):
        splits = splits_of_files(paths) if not any(splits) else _refuse_stray(paths, splits)
    keys = {tuple(place.constants) for place in places}
    if len(keys) > 1:
        raise DataError(
            f"some files of {path.name} lie in folders named {'='.join(max(keys)[:1])}=..., others do not",
            hint="give a folder in which all files lie in such folders, or none does",
        )
    tables = [
        ParquetFile(p, split, place.constants) for p, split, place in zip(paths, splits, places, strict=True)
    ]
    return ArrowTables("parquet", tables, options)


def open_arrow(path: Path, *, options: ImportOptions) -> ArrowTables:
    """One Arrow or Feather file, or every one below a folder."""
    if path.is_file():
        return ArrowTables("arrow", [ArrowFile(path, None)], options)
    paths = files_below(path, suffixes=ARROW_SUFFIXES)
    if not paths:
        raise DataError(f"{path} holds no .arrow or .feather files", hint="give the folder that does")
    tables = [ArrowFile(p, split) for p, split in zip(paths, splits_of_files(paths), strict=True)]
    return ArrowTables("arrow", tables, options)


def open_hf(path: Path, *, options: ImportOptions) -> ArrowTables:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` made.

    Raises DataError for one with a selection of rows (`indices`), which is not applied.
    """
    if (path / HF_DICT).exists():
        named = splits_of_names(_read_json(path / HF_DICT).get("splits"))
        folders: list[tuple[Path, str | None]] = [(path / name, split) for name, split in named.items()]
        index = [path / HF_DICT]
    else:
        folders, index = [(path, None)], []
    tables: list[ArrowFile] = []
    for folder, split in folders:
        state = _read_json(folder / HF_STATE)
        try:
            files = [own_name(file["filename"]) for file in state["_data_files"]]
        except (KeyError, TypeError):
            raise DataError(f"{folder} is not a data set saved by Hugging Face datasets") from None
        if state.get("_indices_files") or state.get("_indices_data_files"):
            raise DataError(
                f"{folder} keeps a selection of its rows in an index file, which is not read",
                hint="write the selected rows alone: dataset.flatten_indices().save_to_disk(...)",
            )
        index.append(folder / HF_STATE)
        tables += [ArrowFile(folder / name, split) for name in files]
    if not tables:
        raise DataError(f"{path} lists no files", hint="an import needs at least one record")
    return ArrowTables("hf", tables, options, also_read=tuple(index))


def files_below(folder: Path, *, suffixes: Sequence[str]) -> list[Path]:
    """Files with these endings, in order of their paths, without hidden ones and those in hidden folders."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


class _Place(NamedTuple):
    split: str | None
    constants: Mapping[str, str]


def _place(path: Path, *, root: Path) -> _Place:
    """What the folders between the root and a file say: its split, and columns."""
    split, constants = None, dict[str, str]()
    for part in path.relative_to(root).parts[:-1]:
        match = _PARTITION.fullmatch(part)
        if match is None:
            split = SPLIT_NAMES.get(part.lower(), split)
        elif match[1] == "split" and match[2].lower() in SPLIT_NAMES:
            split = SPLIT_NAMES[match[2].lower()]
        else:
            constants[unquote(match[1])] = unquote(match[2])
    return _Place(split, constants)


def _refuse_stray(paths: Sequence[Path], splits: Sequence[str | None]) -> list[str | None]:
    """Raises DataError unless the files outside the folders of splits are named for one."""
    by_name = splits_of_files([path for path, split in zip(paths, splits, strict=True) if not split])
    stray = next(path for path, split in zip(paths, splits, strict=True) if not split)
    if not all(by_name):
        raise DataError(
            f"{stray.name} lies beside folders of splits and belongs to none",
            hint=f"move it out of the folder, or name it for a split: train-{stray.name}",
        )
    names = iter(by_name)
    return [split or next(names) for split in splits]


def _refuse_table_formats(folder: Path) -> None:
    for name, program in _TABLE_FORMATS.items():
        is_one = (folder / name).is_dir() and (
            name != "metadata" or any((folder / name).glob("*.metadata.json"))
        )
        if is_one:
            raise DataError(
                f"{folder} is a {program} table: its log says which Parquet files count, and is not read",
                hint="write the rows to plain Parquet files with the program that manages the table",
            )


def _read_json(path: Path) -> dict[str, Any]:
    """Raises DataError for a file that holds no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path.parent} is not a data set saved by Hugging Face datasets: {path.name} is not readable"
        )
    return found


def _with_constants(table: TableFile) -> pyarrow.Schema:
    """The schema of a file with the columns of its path, which one inside it goes before."""
    schema = table.schema()
    for name in table.constants:
        if name not in schema.names:
            schema = schema.append(import_pyarrow("pyarrow").field(name, "string"))
    return schema


def _values(batch: pyarrow.RecordBatch, name: str, *, table: TableFile) -> pyarrow.Array:
    if name in batch.schema.names:
        return batch.column(name)
    arrow = import_pyarrow("pyarrow")
    text = table.constants[name]
    return arrow.repeat(arrow.scalar(None if text == _NO_VALUE else text, "string"), batch.num_rows)


def _whole_facts(values: pyarrow.Array) -> WholeFacts | None:
    """None for a column that is neither whole numbers nor truths."""
    arrow = import_pyarrow("pyarrow")
    if arrow.types.is_boolean(values.type):
        return WholeFacts(values.null_count > 0, 0, 1)
    if arrow.types.is_null(values.type):
        return WholeFacts(len(values) > 0)
    if not arrow.types.is_integer(values.type):
        return None
    bounds = import_pyarrow("pyarrow.compute").min_max(values).as_py()
    return WholeFacts(values.null_count > 0, min(0, bounds["min"] or 0), max(0, bounds["max"] or 0))


def _raw(row: pyarrow.RecordBatch) -> bytes:
    """A row that is set aside, as an Arrow stream."""
    arrow = import_pyarrow("pyarrow")
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, row.schema.remove_metadata()) as writer:
        writer.write_batch(row.replace_schema_metadata(None))
    data: bytes = sink.getvalue().to_pybytes()
    return data

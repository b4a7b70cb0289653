"""Tables with a header row, separated by comma, tab, semicolon or bar (RFC 4180); packed ones too."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import BinaryIO

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import BYTE_ORDER_MARK, decode_text
from rsc.ingest.readers.lines import (
    MAX_RECORD_BYTES,
    LineEnds,
    LineSpan,
    end_notes,
    has_bare_returns,
    head,
    is_read_forwards,
    open_forwards,
    read_span,
)
from rsc.ingest.readers.source import (
    BadRecord,
    Chunk,
    NarrowTypes,
    Part,
    Source,
    SourceFile,
    Values,
    until_limit,
)
from rsc.ingest.readers.tables.cell_types import LIKE_NUMBER, CellsSeen, convert, look_at
from rsc.ingest.readers.tables.csv_rows import CsvRow, parse_rows
from rsc.ingest.readers.tables.declared import declared_field
from rsc.ingest.readers.tables.header import column_names, has_header_line, looks_like_record
from rsc.ingest.readers.tables.infer_fields import SAMPLE_ROWS, chosen_names, note_missing, stored_names
from rsc.store.format.schema import Field

_DELIMITERS = ",\t;|"
_HEAD_BYTES = 1 << 20  # where the delimiter and the first types are found
_ROWS_PER_CHUNK = 4096
_YEAR = re.compile("(?:19|20)[0-9]{2}")  # names of columns in tables that go by years
_FOREIGN = re.compile("[\udc80-\udcff]")  # bytes outside the encoding, as `surrogateescape` decodes them


@dataclass(frozen=True)
class TakenColumn:
    """A column to take: its place, the stored field, and what was seen in it; declared without `seen`."""

    source_name: str
    field: Field
    seen: CellsSeen | None = None


@dataclass
class DelimitedTable(Source):
    """Reader of one file. Record numbers count the rows after the header; blank lines are not rows."""

    path: SourceFile
    options: ImportOptions
    like: DelimitedTable | None = None
    """The first file of a set, whose types hold for all."""
    known: Mapping[str, CellsSeen] | None = None
    """What the whole source holds, once it was surveyed; else the first rows tell."""
    kind: str = field(default="csv", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(item.field for item in self.columns)

    def names(self) -> dict[str, str]:
        return {c.field.name: c.source_name for c in self.columns if c.field.name != c.source_name}

    def files(self) -> list[SourceFile]:
        return [self.path]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Row ends are found by parsing, because a quoted cell may hold a line end."""
        is_forwards = is_read_forwards(self.path)
        start = line = first_record = 0
        for number, (piece, num_rows) in enumerate(self._pieces(part_bytes)):
            span = LineSpan(start=start, stop=start + len(piece), first_line=line)
            yield Part(
                number,
                first_record,
                len(piece),
                span,
                payload=piece,
                is_forward_only=is_forwards,
                num_records=num_rows,
            )
            start, line = span.stop, line + piece.count(b"\n")
            first_record += num_rows

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for text in another encoding and for a quote that is never closed."""
        for batch, bytes_per_line in self._batches(part):
            chunk = self._chunk(batch, size_bytes=round(bytes_per_line * len(batch)))
            chunk.notes |= end_notes(batch[-1][1].raw)
            yield chunk

    def look(self) -> None:
        """Find out from the start of the file what reading a part of it takes."""
        _ = self._ends, self._delimiter, self.columns

    def surveyed(self) -> DelimitedTable:
        return replace(self, known=self.survey())

    def survey(self) -> dict[str, CellsSeen]:
        """What all rows hold, by column; cells that make their row bad are left out."""
        seen = {column.source_name: column.seen or CellsSeen() for column in self.columns}
        for part in until_limit(partial(self.parts, part_bytes=_HEAD_BYTES), span=None):
            for batch, _ in () if part.refusal else self._batches(part):
                rows = [row.cells for _, row in batch if self._reason(row) is None]
                for column, cells in self._cells(rows):
                    fitting = [cell for cell in cells if not _is_bad(cell, column)]
                    seen[column.source_name] = seen[column.source_name].merged(look_at(fitting))
        return seen

    @cached_property
    def columns(self) -> tuple[TakenColumn, ...]:
        """The columns to take. Raises DataError for a file whose header differs from that of its set."""
        if self.like is not None:
            if set(self._header) != set(self.like._header):
                raise DataError(
                    f"{self.path.name} has other columns than {self.like.path.name}",
                    hint="import it from a folder of its own",
                )
            return self.like.columns
        seen = self.known or self._first_seen()
        names = chosen_names(list(seen), options=self.options)
        texts = [name for name in names if seen[name].has_words]
        stored = stored_names(names, texts=texts, options=self.options)
        declared = self.options.types
        return tuple(
            TakenColumn(name, declared_field(stored[name], declared[name]))
            if name in declared
            else TakenColumn(name, seen[name].field(stored[name]), seen[name])
            for name in names
        )

    def _first_seen(self) -> dict[str, CellsSeen]:
        """What the first rows hold. Raises DataError where there is none, or the header looks like one."""
        width = len(self._header)
        rows = [
            row.cells for row in self._head_rows[has_header_line(self.options) :] if len(row.cells) == width
        ]
        if not rows:
            raise DataError(
                f"{self.path.name} has no row of {width} cells after its header",
                hint="every row has as many cells as the first line names columns",
            )
        seen = dict(zip(self._header, map(look_at, zip(*rows[:SAMPLE_ROWS], strict=True)), strict=True))
        if self.options.header == "auto":
            for name, cells in seen.items():
                is_number = LIKE_NUMBER.fullmatch(name) and not _YEAR.fullmatch(name)
                if is_number and cells.has_filled and not cells.has_words:
                    raise looks_like_record(self.path.name, "a number is above a column of numbers")
        return seen

    @cached_property
    def _delimiter(self) -> str:
        if ".tsv" in (suffix.lower() for suffix in self.path.suffixes):
            return "\t"
        data = head(self.path, size_bytes=4096, ends=self._ends)
        first = data.decode("latin-1").partition("\n")[0]
        return max(_DELIMITERS, key=lambda character: (first.count(character), -_DELIMITERS.index(character)))

    @cached_property
    def _ends(self) -> LineEnds:
        return LineEnds(are_returns=has_bare_returns(self.path))

    @cached_property
    def _head_rows(self) -> list[CsvRow]:
        """Rows of the beginning, of so much that a record follows the header. Raises DataError for a quote
        that is still open behind the longest record."""
        rows: list[CsvRow] = []
        for size_bytes in (_HEAD_BYTES, 2 * MAX_RECORD_BYTES):
            if len(rows) < 2:
                data = head(self.path, size_bytes=size_bytes, ends=self._ends)
                text = self._decode(data, first_line=0)
                rows = list(islice(self._rows(text, is_whole=False), SAMPLE_ROWS + 1))
        return rows if len(rows) > 1 else list(islice(self._rows(text), 2))

    @cached_property
    def _header(self) -> tuple[str, ...]:
        """Names of the columns. Raises DataError when two are equal or the first line is no header."""
        if not self._head_rows or not self._head_rows[0].cells:
            raise DataError(f"{self.path.name} has no header row", hint="the first line names the columns")
        first = self._head_rows[0]
        if any(map(_FOREIGN.search, first.cells)):
            decode_text(first.raw, first_line=0, name=self.path.name, options=self.options)
        return column_names(first.cells, file_name=self.path.name, options=self.options)

    def _batches(self, part: Part) -> Iterator[tuple[list[tuple[int, CsvRow]], float]]:
        """Rows with their record numbers, and how many bytes one has on average."""
        data = read_span(self.path, part, ends=self._ends)
        rows = self._rows(
            self._decode(data, first_line=part.span.first_line), first_line=part.span.first_line
        )
        if part.span.start == 0 and has_header_line(self.options):
            next(rows)
        numbered = enumerate(rows, start=part.first_record)
        bytes_per_line = len(data) / (data.count(b"\n") or 1)
        while batch := list(islice(numbered, _ROWS_PER_CHUNK)):
            yield batch, bytes_per_line

    def _decode(self, data: bytes, *, first_line: int) -> str:
        """Raises DataError for text in another encoding, unless its rows are to be set aside."""
        if self.options.bad_encoding == "stop":
            return decode_text(data, first_line=first_line, name=self.path.name, options=self.options)
        text = data.decode(self.options.encoding, errors="surrogateescape")
        return text.removeprefix(BYTE_ORDER_MARK) if first_line == 0 else text

    def _rows(self, text: str, *, first_line: int = 0, is_whole: bool = True) -> Iterator[CsvRow]:
        return parse_rows(
            io.StringIO(text, newline="\n"),
            delimiter=self._delimiter,
            first_line=first_line,
            name=self.path.name,
            encoding=self.options.encoding,
            is_whole=is_whole,
        )

    def _reason(self, row: CsvRow) -> str | None:
        """Why a row is no record."""
        if row.reason is not None:
            return row.reason
        if len(row.cells) != len(self._header):
            return f"{len(row.cells)} cells where the header has {len(self._header)}"
        if self.options.bad_encoding != "stop" and any(map(_FOREIGN.search, row.cells)):
            return f"not {self.options.encoding.upper()}"
        return None

    def _cells(self, rows: Sequence[Sequence[str]]) -> Iterator[tuple[TakenColumn, tuple[str, ...]]]:
        """The cells of each column to take."""
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(self._header)
        for column in self.columns:
            yield column, cells[self._header.index(column.source_name)]

    def _chunk(self, batch: Sequence[tuple[int, CsvRow]], *, size_bytes: int) -> Chunk:
        """Raises NarrowTypes for a number that its column's type does not hold."""
        reasons = {number: self._reason(row) for number, row in batch}
        whole = [(number, row) for number, row in batch if reasons[number] is None]
        columns = list(self._cells([row.cells for _, row in whole]))
        for column, cells in columns:
            if column.field.kind != "string":
                for (number, _), cell in zip(whole, cells, strict=True):
                    if reasons[number] is None and _is_bad(cell, column):
                        reasons[number] = _misfit(cell, column.field)
        keep = np.array(
            [index for index, (number, _) in enumerate(whole) if reasons[number] is None], np.int64
        )
        notes: Counter[str] = Counter()
        values = {
            column.field.name: _values([cells[row] for row in keep.tolist()], column, notes=notes)
            for column, cells in columns
        }
        return Chunk(
            columns=values,
            numbers=np.array([whole[row][0] for row in keep.tolist()], dtype=np.uint64),
            size_bytes=size_bytes,
            bad=[
                BadRecord(number, f"line {row.line + 1}", reason, raw=row.raw)
                for number, row in batch
                if (reason := reasons[number]) is not None
            ],
            notes=dict(notes),
        )

    def _pieces(self, part_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Bytes of whole rows, and how many rows after the header they hold."""
        taken: list[bytes] = []

        def feed(file: BinaryIO) -> Iterator[str]:
            for line in file:
                taken.append(line)
                yield line.decode("latin-1")

        with open_forwards(self.path, ends=self._ends) as file:
            num_rows, size, num_lines = -int(has_header_line(self.options)), 0, 0
            for _ in parse_rows(feed(file), delimiter=self._delimiter, name=self.path.name):
                num_rows += 1
                size += sum(map(len, taken[num_lines:]))
                num_lines = len(taken)
                if size >= part_bytes:
                    yield b"".join(taken), num_rows
                    taken.clear()
                    num_rows = size = num_lines = 0
        if taken:
            yield b"".join(taken), num_rows


def _is_bad(cell: str, column: TakenColumn) -> bool:
    """Whether a cell is no number where the column holds numbers, or not what was declared."""
    if column.field.kind == "string":
        return False
    if column.seen is not None:
        return bool(cell) and LIKE_NUMBER.fullmatch(cell) is None
    if not cell:
        return column.field.missing is None and column.field.dtype != "float64"
    return not _is_declared(cell, column.field)


def _is_declared(cell: str, item: Field) -> bool:
    """Whether a cell is a number of the declared type: its value, however it is spelled."""
    if item.dtype == "bool":
        return cell.lower() in _TRUTHS
    try:
        if item.dtype == "float64":
            return math.isfinite(float(cell)) and LIKE_NUMBER.fullmatch(cell) is not None
        limits = np.iinfo(item.storage)
        return int(cell) != item.missing and limits.min <= int(cell) <= limits.max and cell.isascii()
    except ValueError:
        return False


def _values(cells: Sequence[str], column: TakenColumn, *, notes: Counter[str]) -> Values:
    item = column.field
    if item.kind == "string":
        return cells
    if column.seen is not None and column.seen.merged(look_at(cells)).field(item.name) != item:
        raise NarrowTypes(
            f"column {item.name!r} holds numbers that do not fit {item.dtype}, the type of the first rows",
            hint=f"declare it: schema.{column.source_name}=string",
        )
    note_missing(item, cells.count(""), notes=notes)
    if item.dtype == "bool":
        return np.array([_TRUTHS[cell.lower()] for cell in cells], dtype=bool)
    return convert(cells, item)


def _misfit(cell: str, item: Field) -> str:
    wanted = {"f": "number", "b": "true or false"}.get(item.storage.kind, "whole number")
    found = "nothing" if not cell else "a number that does not fit" if LIKE_NUMBER.fullmatch(cell) else "text"
    return f"field {item.name!r}: a {wanted} was expected, found {found}"


_TRUTHS = {"true": True, "false": False}

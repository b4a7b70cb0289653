"""Tables with a header row, separated by comma, tab, semicolon or bar (RFC 4180); `.gz`, `.zst` too."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import decode_text
from rsc.ingest.readers.lines import MAX_RECORD_BYTES, LineSpan, head, is_compressed, open_forwards, read_span
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source
from rsc.ingest.readers.tables.header import column_names, has_header_line
from rsc.ingest.readers.tables.infer_fields import SAMPLE_ROWS, SourceField, infer_fields, to_table
from rsc.store.format.schema import Field

_DELIMITERS = ",\t;|"
_HEAD_BYTES = 1 << 20  # where the delimiter and the types are found
_ROWS_PER_CHUNK = 4096
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")  # a leading zero means a code (post code, phone): text
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class _Row:
    line: int
    cells: Sequence[str]
    reason: str | None = None


@dataclass
class DelimitedTable(Source):
    """Reader of one file. Record numbers count the rows after the header; blank lines are not rows."""

    path: Path
    options: ImportOptions
    like: DelimitedTable | None = None
    """The first file of a set, whose types hold for all."""
    kind: str = field(default="csv", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(item.field for item in self._fields)

    def files(self) -> list[Path]:
        return [self.path]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Row ends are found by parsing, because a quoted cell may hold a line end."""
        packed = is_compressed(self.path)
        start = line = first_record = 0
        for number, (piece, num_rows) in enumerate(self._pieces(part_bytes)):
            span = LineSpan(start=start, stop=start + len(piece), first_line=line)
            yield Part(
                number,
                first_record,
                len(piece),
                span,
                payload=piece,
                is_forward_only=packed,
                num_records=num_rows,
            )
            start, line = span.stop, line + piece.count(b"\n")
            first_record += num_rows

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for text in another encoding and for a quote that is never closed."""
        line = part.span.first_line
        data = read_span(self.path, part)
        text = decode_text(data, first_line=line, name=self.path.name, options=self.options)
        rows = self._rows(io.StringIO(text, newline="\n"), first_line=line)
        if part.span.start == 0 and has_header_line(self.options):
            next(rows)
        bytes_per_line = len(data) / (data.count(b"\n") or 1)
        numbered = enumerate(rows, start=part.first_record)
        while batch := list(islice(numbered, _ROWS_PER_CHUNK)):
            yield self._chunk(batch, size_bytes=round(bytes_per_line * len(batch)))

    @cached_property
    def _delimiter(self) -> str:
        if ".tsv" in (suffix.lower() for suffix in self.path.suffixes):
            return "\t"
        first = self._head.partition("\n")[0]
        return max(_DELIMITERS, key=lambda character: (first.count(character), -_DELIMITERS.index(character)))

    @cached_property
    def _head(self) -> str:
        data = head(self.path, size_bytes=_HEAD_BYTES)
        return decode_text(data, first_line=0, name=self.path.name, options=self.options)

    @cached_property
    def _header(self) -> tuple[str, ...]:
        """Names of the columns. Raises DataError when two are equal."""
        first = next(self._rows(io.StringIO(self._head, newline="\n"), first_line=0, is_whole=False), None)
        if first is None or not first.cells:
            raise DataError(f"{self.path.name} has no header row", hint="the first line names the columns")
        return column_names(first.cells, file_name=self.path.name, options=self.options)

    @cached_property
    def _fields(self) -> tuple[SourceField, ...]:
        if self.like is not None:
            if set(self._header) != set(self.like._header):
                raise DataError(
                    f"{self.path.name} has other columns than {self.like.path.name}",
                    hint="import it from a folder of its own",
                )
            return self.like._fields
        rows = self._rows(io.StringIO(self._head, newline="\n"), first_line=0, is_whole=False)
        cells = [
            row.cells
            for row in islice(rows, has_header_line(self.options), SAMPLE_ROWS)
            if len(row.cells) == len(self._header)
        ]
        if not cells:
            raise DataError(
                f"{self.path.name} has no row of {len(self._header)} cells after its header",
                hint="every row has as many cells as the first line names columns",
            )
        columns = [_parse_column(column) for column in zip(*cells, strict=True)]
        sample = [dict(zip(self._header, row, strict=True)) for row in zip(*columns, strict=True)]
        return infer_fields(sample, options=self.options)

    def _chunk(self, batch: Sequence[tuple[int, _Row]], *, size_bytes: int) -> Chunk:
        width = len(self._header)
        whole = [(number, row) for number, row in batch if len(row.cells) == width]
        bad = [
            _bad(number, row, _width_reason(row, width)) for number, row in batch if len(row.cells) != width
        ]
        wanted = [(self._header.index(item.source_name), item) for item in self._fields]
        rows = [
            {item.source_name: _parse(row.cells[at], item.field) for at, item in wanted} for _, row in whole
        ]
        table = to_table(rows, fields=self._fields, all_fields=False)
        bad += [_bad(*whole[index], reason) for index, reason in table.bad.items()]
        return table.to_chunk(numbers=[number for number, _ in whole], bad=bad, size_bytes=size_bytes)

    def _pieces(self, part_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Bytes of whole rows, and how many rows after the header they hold."""
        taken: list[bytes] = []

        def feed(file: BinaryIO) -> Iterator[str]:
            for line in file:
                taken.append(line)
                yield line.decode("latin-1")

        with open_forwards(self.path) as file:
            num_rows, size, num_lines = -int(has_header_line(self.options)), 0, 0
            for _ in self._rows(feed(file), first_line=0):
                num_rows += 1
                size += sum(map(len, taken[num_lines:]))
                num_lines = len(taken)
                if size >= part_bytes:
                    yield b"".join(taken), num_rows
                    taken.clear()
                    num_rows = size = num_lines = 0
        if taken:
            yield b"".join(taken), num_rows

    def _rows(self, lines: Iterable[str], *, first_line: int, is_whole: bool = True) -> Iterator[_Row]:
        """Rows that hold something, empty cells when the quoting is broken; blank lines are not rows.

        Raises DataError for a quote still open at the end, unless the text is only a head.
        """
        csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own limit, 128 KiB, is for the whole process
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            line = first_line + reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" not in str(error):
                    yield _Row(line, (), reason=str(error))
                    continue
                if not is_whole:
                    return
                raise DataError(
                    f"{self.path.name} line {line + 1} opens a quote that is never closed",
                    hint="close it, or write a quote inside a quoted cell twice",
                ) from None
            if cells:
                yield _Row(line, cells)


def _parse_column(cells: Sequence[str]) -> list[Any]:
    """Numbers where every cell that is not empty is one, else the text as it stands."""
    filled = [cell for cell in cells if cell]
    if filled and all(map(_WHOLE.fullmatch, filled)):
        return [int(cell) if cell else None for cell in cells]
    if filled and all(map(_NUMBER.fullmatch, filled)):
        return [float(cell) if cell else None for cell in cells]
    return list(cells)


def _parse(cell: str, item: Field) -> Any:
    """The cell as the field wants it; one that does not fit stays text, and is bad further on."""
    if item.kind == "string":
        return cell
    if not cell:
        return None
    if item.dtype == "int64" and _WHOLE.fullmatch(cell):
        return int(cell)
    return float(cell) if item.dtype == "float64" and _NUMBER.fullmatch(cell) else cell


def _width_reason(row: _Row, width: int) -> str:
    return row.reason or f"{len(row.cells)} cells where the header has {width}"


def _bad(number: int, row: _Row, reason: str) -> BadRecord:
    text = io.StringIO()
    csv.writer(text).writerow(row.cells)
    return BadRecord(number, f"line {row.line + 1}", reason, raw=text.getvalue().encode())

"""JSON lines: one object a line, or one list of objects; packed files too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import Lines, decode_lines
from rsc.ingest.readers.json_list import begins_list
from rsc.ingest.readers.lines import (
    LineEnds,
    bare_suffix,
    cut_at_lines,
    end_notes,
    has_bare_returns,
    head,
    open_forwards,
    read_span,
)
from rsc.ingest.readers.source import (
    CHUNK_BYTES,
    BadRecord,
    Chunk,
    Part,
    Source,
    SourceFile,
    until_limit,
)
from rsc.ingest.readers.tables.infer_fields import (
    SAMPLE_ROWS,
    SourceField,
    Table,
    infer_fields,
    source_fields,
    survey,
    text_names,
    to_table,
)
from rsc.ingest.readers.tables.value_types import Seen
from rsc.store.format.schema import Field

LINE_SUFFIXES = (".jsonl", ".ndjson")
_HEAD_BYTES = 4 << 20  # where the types are found
_START_BYTES = 4096  # where a list begins
_ENCODINGS_OF_LISTS = ("utf-8", "utf-8-sig", "ascii", "iso8859-1", "cp1252")


@dataclass
class JsonLines(Source):
    """Reader of one file. Lines that hold only white space are not records."""

    path: SourceFile
    options: ImportOptions
    like: JsonLines | None = None
    """The first file of a set, whose types hold for all."""
    known: Mapping[str, Seen] | None = None
    """What the whole source holds, once it was surveyed; else the first lines tell."""
    kind: str = field(default="jsonl", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(item.field for item in self._fields)

    def numeric_texts(self) -> tuple[str, ...]:
        return tuple(item.field.name for item in self._fields if item.is_unscanned)

    def names(self) -> dict[str, str]:
        return {f.field.name: f.source_name for f in self._fields if f.field.name != f.source_name}

    def files(self) -> list[SourceFile]:
        return [self.path]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Raises DataError for a file of a set that has none of its fields."""
        if self.like is not None and not {f.source_name for f in self._fields} & self._first_rows()[0].keys():
            raise DataError(
                f"{self.path.name} has no field that {self.like.path.name} has",
                hint="import it from a folder of its own, or choose fields that all files have with --fields",
            )
        return cut_at_lines(self.path, part_bytes=part_bytes, ends=self._ends)

    def read(self, part: Part) -> Iterator[Chunk]:
        """Chunks of about CHUNK_BYTES. Raises DataError for text that is not in the declared encoding, and
        NarrowTypes."""
        if part.span.too_long:
            yield _too_long(part, unit=self._unit)
            return
        for lines, size_bytes in self._blocks(part):
            chunk = self._parse(lines, size_bytes=size_bytes)
            chunk.notes |= end_notes(lines.last_byte)
            yield chunk

    @property
    def _unit(self) -> str:
        """What its records are counted in."""
        return "element" if self._ends.are_commas else "line"

    def look(self) -> None:
        """Find out from the start of the file what reading a part of it takes."""
        _ = self._ends, self._fields

    def surveyed(self) -> JsonLines:
        return replace(self, known=self.survey())

    def survey(self) -> dict[str, Seen]:
        """What all lines hold, by field; values that make their record bad are left out."""
        seen = {item.source_name: Seen().merged(item.seen or Seen()) for item in self._fields}
        for part in until_limit(partial(self.parts, part_bytes=CHUNK_BYTES), span=None):
            for lines, _ in () if part.refusal or part.span.too_long else self._blocks(part):
                rows = parse_objects(lines.texts, numbers=lines.numbers, unit=self._unit).rows
                survey(self._fields, rows, seen=seen, all_fields=self.options.fields is None)
        return seen

    def _blocks(self, part: Part) -> Iterator[tuple[Lines, int]]:
        data = read_span(self.path, part, ends=self._ends)
        line = part.span.first_line
        start = 0
        while start < len(data):
            stop = data.find(b"\n", start + CHUNK_BYTES) + 1 or len(data)
            lines = decode_lines(data[start:stop], first_line=line, name=self.path.name, options=self.options)
            yield lines, stop - start
            line += lines.num_lines
            start = stop

    @property
    def _is_surveyed(self) -> bool:
        return (self.like or self).known is not None

    @cached_property
    def _ends(self) -> LineEnds:
        """Raises ConfigError for a list in an encoding in which bytes of a mark may be part of a letter."""
        with open_forwards(self.path) as file:
            is_list = begins_list(file.read(_START_BYTES)) and bare_suffix(self.path) not in LINE_SUFFIXES
        if is_list and self.options.encoding not in _ENCODINGS_OF_LISTS:
            raise ConfigError(
                f"{self.path.name} is one JSON list in {self.options.encoding}; lists are read in UTF-8",
                hint="convert it: iconv -f ENCODING -t UTF-8 FILE > NEW",
            )
        return LineEnds(are_returns=not is_list and has_bare_returns(self.path), are_commas=is_list)

    @cached_property
    def _fields(self) -> tuple[SourceField, ...]:
        """Types of the first rows. Raises DataError when none of them is a JSON object."""
        if self.like is not None:
            return self.like._fields
        if self.known is not None:
            return source_fields(self.known, texts=text_names(self.known), options=self.options)
        return infer_fields(self._first_rows(), options=self.options)

    def _first_rows(self) -> list[dict[str, Any]]:
        """Raises DataError where there is none."""
        data = head(self.path, size_bytes=_HEAD_BYTES, ends=self._ends)
        lines = decode_lines(data, first_line=0, name=self.path.name, options=self.options)
        found = parse_objects(lines.texts[:SAMPLE_ROWS], numbers=lines.numbers[:SAMPLE_ROWS], unit=self._unit)
        if not found.rows:
            bad = [*found.bad, *lines.bad]
            first = f"{bad[0].place}: {bad[0].reason}" if bad else "it holds only white space"
            raise DataError(
                f"{self.path.name} does not look like JSON lines: {first}",
                hint="one JSON object a line; for other formats say --format csv, text, ...",
            )
        return found.rows

    def _parse(self, lines: Lines, *, size_bytes: int) -> Chunk:
        found = parse_objects(lines.texts, numbers=lines.numbers, unit=self._unit)
        table = self._table(found.rows)
        if table.holds_infinity:  # written so, or a number that overflowed
            found = parse_objects(lines.texts, numbers=lines.numbers, unit=self._unit, is_strict=True)
            table = self._table(found.rows)
        bad = [*lines.bad, *found.bad]
        if table.bad:
            line_of = dict(zip(lines.numbers, lines.texts, strict=True))
            misfits = {found.numbers[row]: reason for row, reason in table.bad.items()}
            bad += [
                _bad_line(number, line_of[number], reason=reason, unit=self._unit)
                for number, reason in misfits.items()
            ]
        return table.to_chunk(numbers=found.numbers, bad=bad, size_bytes=size_bytes)

    def _table(self, rows: Sequence[dict[str, Any]]) -> Table:
        is_whole = self.options.fields is None
        return to_table(rows, fields=self._fields, all_fields=is_whole, is_surveyed=self._is_surveyed)


class Objects(NamedTuple):
    """Objects of the lines that hold one, their line numbers, and the lines that do not."""

    rows: list[dict[str, Any]]
    numbers: list[int]
    bad: list[BadRecord]


def parse_objects(
    lines: Sequence[str], *, numbers: Sequence[int], unit: str = "line", is_strict: bool = False
) -> Objects:
    """Blank lines are neither. `numbers` are those of the lines, from 0.

    `is_strict`: a number beyond float64, which the parser takes for infinity, makes its line bad. Looking for
    them costs more than the parsing, so it is done where an infinity came out.
    """
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    bad: list[BadRecord] = []
    parse_float = _finite if is_strict else None
    decode = json.JSONDecoder(object_pairs_hook=_whole_object, parse_float=parse_float).decode
    for number, line in zip(numbers, lines, strict=True):
        try:
            row = decode(line)
        except (ValueError, RecursionError) as error:
            if line.strip():
                bad.append(_bad_line(number, line, reason=_why(error), unit=unit))
            continue
        if isinstance(row, dict):
            rows.append(row)
            kept.append(number)
        else:
            reason = f"a JSON {type(row).__name__}, not an object"
            bad.append(_bad_line(number, line, reason=reason, unit=unit))
    return Objects(rows, kept, bad)


class _KeyTwice(ValueError):
    """An object has a key twice: nobody knows which of the values is meant. The parser takes the last."""


def _whole_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _KeyTwice
    return found


class _TooLarge(ValueError):
    """A number that no float64 comes near to."""


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _TooLarge
    return number


def _bad_line(number: int, line: str, *, reason: str, unit: str) -> BadRecord:
    return BadRecord(record=number, place=f"{unit} {number + 1}", reason=reason, raw=line.encode())


def _why(error: Exception) -> str:
    """The parser's words without its quotation of the line."""
    if isinstance(error, _KeyTwice):
        return "an object has a key twice"
    if isinstance(error, _TooLarge):
        return "a number is larger than a float64 can be"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return (
        "not JSON: nested too deeply" if isinstance(error, RecursionError) else "not JSON: a number too long"
    )


def _too_long(part: Part, *, unit: str) -> Chunk:
    size, number = part.size_bytes, part.first_record
    bad = BadRecord(number, f"{unit} {number + 1}", f"{size} bytes in one {unit}: too long")
    return Chunk(columns={}, numbers=np.zeros(0, dtype=np.uint64), size_bytes=size, bad=[bad])

"""JSON lines: one object a line; `.gz` and `.zst` too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import Lines, decode_lines
from rsc.ingest.readers.lines import cut_at_lines, head, read_span
from rsc.ingest.readers.source import CHUNK_BYTES, BadRecord, Chunk, Part, Source
from rsc.ingest.readers.tables.infer_fields import SAMPLE_ROWS, SourceField, infer_fields, to_table
from rsc.store.format.schema import Field

_HEAD_BYTES = 4 << 20  # where the types are found


@dataclass
class JsonLines(Source):
    """Reader of one file. Lines that hold only white space are not records."""

    path: Path
    options: ImportOptions
    like: JsonLines | None = None
    """The first file of a set, whose types hold for all."""
    kind: str = field(default="jsonl", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(item.field for item in self._fields)

    def files(self) -> list[Path]:
        return [self.path]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        return cut_at_lines(self.path, part_bytes=part_bytes)

    def read(self, part: Part) -> Iterator[Chunk]:
        """Chunks of about CHUNK_BYTES. Raises DataError for text that is not in the declared encoding."""
        if part.span.too_long:
            yield _too_long(part)
            return
        data = read_span(self.path, part)
        line = part.span.first_line
        start = 0
        while start < len(data):
            stop = data.find(b"\n", start + CHUNK_BYTES) + 1 or len(data)
            lines = decode_lines(data[start:stop], first_line=line, name=self.path.name, options=self.options)
            yield self._parse(lines, size_bytes=stop - start)
            line += lines.num_lines
            start = stop

    @cached_property
    def _fields(self) -> tuple[SourceField, ...]:
        """Types of the first rows. Raises DataError when none of them is a JSON object."""
        if self.like is not None:
            return self.like._fields
        data = head(self.path, size_bytes=_HEAD_BYTES)
        lines = decode_lines(data, first_line=0, name=self.path.name, options=self.options)
        found = parse_objects(lines.texts[:SAMPLE_ROWS], numbers=lines.numbers[:SAMPLE_ROWS])
        if not found.rows:
            bad = found.bad
            first = f"{bad[0].place}: {bad[0].reason}" if bad else "it holds only white space"
            raise DataError(
                f"{self.path.name} does not look like JSON lines: {first}",
                hint="one JSON object a line; for other formats say --format csv, text, ...",
            )
        return infer_fields(found.rows, options=self.options)

    def _parse(self, lines: Lines, *, size_bytes: int) -> Chunk:
        found = parse_objects(lines.texts, numbers=lines.numbers)
        table = to_table(found.rows, fields=self._fields, all_fields=self.options.fields is None)
        bad = [*lines.bad, *found.bad]
        if table.bad:
            line_of = dict(zip(lines.numbers, lines.texts, strict=True))
            misfits = {found.numbers[row]: reason for row, reason in table.bad.items()}
            bad += [_bad_line(number, line_of[number], reason=reason) for number, reason in misfits.items()]
        return table.to_chunk(numbers=found.numbers, bad=bad, size_bytes=size_bytes)


class Objects(NamedTuple):
    """Objects of the lines that hold one, their line numbers, and the lines that do not."""

    rows: list[dict[str, Any]]
    numbers: list[int]
    bad: list[BadRecord]


def parse_objects(lines: Sequence[str], *, numbers: Sequence[int]) -> Objects:
    """Blank lines are neither. `numbers` are those of the lines, from 0."""
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    bad: list[BadRecord] = []
    decode = json.JSONDecoder().decode
    for number, line in zip(numbers, lines, strict=True):
        try:
            row = decode(line)
        except (ValueError, RecursionError) as error:
            if line.strip():
                bad.append(_bad_line(number, line, reason=_why(error)))
            continue
        if isinstance(row, dict):
            rows.append(row)
            kept.append(number)
        else:
            bad.append(_bad_line(number, line, reason=f"a JSON {type(row).__name__}, not an object"))
    return Objects(rows, kept, bad)


def _bad_line(number: int, line: str, *, reason: str) -> BadRecord:
    return BadRecord(record=number, place=f"line {number + 1}", reason=reason, raw=line.encode())


def _why(error: Exception) -> str:
    """The parser's words without its quotation of the line."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return (
        "not JSON: nested too deeply" if isinstance(error, RecursionError) else "not JSON: a number too long"
    )


def _too_long(part: Part) -> Chunk:
    size = part.size_bytes
    bad = BadRecord(part.first_record, f"line {part.first_record + 1}", f"{size} bytes in one line: too long")
    return Chunk(columns={}, numbers=np.zeros(0, dtype=np.uint64), size_bytes=size, bad=[bad])

"""JSON lines: one object a line; `.gz` and `.zst` too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.encoding import Lines, decode_lines
from rsc.ingest.fields import SAMPLE_ROWS, SourceField, infer_fields, to_table
from rsc.ingest.lines import cut_at_lines, head, read_span
from rsc.ingest.source import CHUNK_BYTES, BadRecord, Chunk, Part
from rsc.store.schema import Field

_HEAD_BYTES = 4 << 20  # where the types are found


@dataclass
class JsonLines:
    """Reader of one file. Lines that hold only white space are not records."""

    path: Path
    options: ImportOptions
    like: JsonLines | None = None
    """The first file of a set, whose types hold for all."""
    kind: str = field(default="jsonl", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(item.field for item in self._fields)

    def media(self) -> dict[str, str]:
        return {}

    def splits(self) -> tuple[str, ...]:
        return ()

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
        rows, _, bad = parse_objects(lines.texts[:SAMPLE_ROWS], numbers=lines.numbers[:SAMPLE_ROWS])
        if not rows:
            first = f"{bad[0].place}: {bad[0].reason}" if bad else "it holds only white space"
            raise DataError(
                f"{self.path.name} does not look like JSON lines: {first}",
                hint="one JSON object a line; for other formats say --format csv, text, ...",
            )
        return infer_fields(rows, options=self.options)

    def _parse(self, lines: Lines, *, size_bytes: int) -> Chunk:
        rows, numbers, bad = parse_objects(lines.texts, numbers=lines.numbers)
        table = to_table(rows, fields=self._fields, all_fields=self.options.fields is None)
        bad = [*lines.bad, *bad, *_misfits(table.bad, rows, numbers)]
        kept = (
            [number for index, number in enumerate(numbers) if index not in table.bad]
            if table.bad
            else numbers
        )
        return Chunk(
            columns=table.columns,
            numbers=np.array(kept, dtype=np.uint64),
            size_bytes=size_bytes,
            bad=sorted(bad, key=lambda record: record.record),
            notes=dict(table.notes),
        )


def parse_objects(
    lines: Sequence[str], *, numbers: Sequence[int]
) -> tuple[list[dict[str, Any]], list[int], list[BadRecord]]:
    """Objects of the lines that hold one, their line numbers, and the lines that do not."""
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
    return rows, kept, bad


def _misfits(
    reasons: dict[int, str], rows: Sequence[dict[str, Any]], numbers: Sequence[int]
) -> list[BadRecord]:
    return [
        _bad_line(numbers[index], json.dumps(rows[index], ensure_ascii=False), reason=reason)
        for index, reason in reasons.items()
    ]


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

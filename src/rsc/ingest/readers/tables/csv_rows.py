"""Rows of a delimited table, each with the lines that it was read from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rsc.errors import DataError
from rsc.ingest.readers.lines import MAX_RECORD_BYTES


@dataclass(frozen=True)
class CsvRow:
    """Cells of one row, or the reason why its quoting is broken. `raw` is what stood in the file."""

    line: int
    cells: Sequence[str]
    raw: bytes
    reason: str | None = None


def parse_rows(
    lines: Iterable[str],
    *,
    delimiter: str,
    name: str,
    first_line: int = 0,
    encoding: str = "latin-1",
    is_whole: bool = True,
) -> Iterator[CsvRow]:
    """Rows that hold something; blank lines are not rows.

    Raises DataError for a quote still open at the end, unless the text is only a beginning (`is_whole`), and
    for one that stays open for more than a record may have.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # the module's own limit, 128 KiB, is for the whole process
    taken: list[str] = []

    def feed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        line = first_line + reader.line_num
        taken.clear()
        reason = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, reason = [], str(error)
            if "unexpected end" in reason or "field limit" in reason:
                if not is_whole:
                    return
                raise DataError(
                    f"{name} line {line + 1} opens a quote that is never closed",
                    hint="close it, or write a quote inside a quoted cell twice",
                ) from None
            if len(taken) > 1:
                reason = (
                    f"a quote that opens in the first of {len(taken)} lines is not closed right: {reason}"
                )
        if cells or reason:
            yield CsvRow(line, cells, "".join(taken).encode(encoding, errors="surrogateescape"), reason)

"""A folder of JSON-lines or table files as one source, in order of their names.

The fields are those of the first file that can be read, the types hold for all. A file that passes a limit
is set aside by name. Files whose names begin with a split
(`train-00.jsonl`, `test.csv`) belong to it; then all must.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source, SourceFile, until_limit
from rsc.ingest.readers.split_names import splits_of_files
from rsc.ingest.readers.tables.delimited import DelimitedTable
from rsc.ingest.readers.tables.jsonl import JsonLines
from rsc.ingest.readers.tables.value_types import Seen
from rsc.store.format.schema import Field


class _FileSpan(NamedTuple):
    file: int
    part: Part


@dataclass
class FileSet(Source):
    """Reader of several files of one kind."""

    readers: Sequence[JsonLines | DelimitedTable]

    def __post_init__(self) -> None:
        self._splits = splits_of_files([reader.path for reader in self.readers])

    @property
    def _first(self) -> JsonLines | DelimitedTable:
        """The reader whose fields are those of all."""
        return self.readers[0].like or self.readers[0]

    @property
    def kind(self) -> str:
        return self.readers[0].kind

    def fields(self) -> tuple[Field, ...]:
        return self._first.fields()

    def numeric_texts(self) -> tuple[str, ...]:
        return self._first.numeric_texts()

    def names(self) -> dict[str, str]:
        return self._first.names()

    def surveyed(self) -> FileSet:
        """The set with types that hold in every file."""
        seen: dict[str, Any] = {}
        for number, more in enumerate(self._surveys()):
            if not number:
                seen = more
                continue
            lacking = Seen({"null"})  # only JSON lines can lack a field
            seen = {
                name: seen.get(name, lacking).merged(more.get(name, lacking)) for name in {**seen, **more}
            }
        first: Any = replace(self._first, known=seen)  # type: ignore[arg-type]
        return FileSet(
            [first if reader is self._first else replace(reader, like=first) for reader in self.readers]
        )

    def _surveys(self) -> Iterator[dict[str, Any]]:
        """Of the files whose beginnings can be read; `parts` says which cannot."""
        for reader in self.readers:
            with contextlib.suppress(LimitPassed, MemoryError):
                yield dict(reader.survey())

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split for split in self._splits if split))

    def files(self) -> list[SourceFile]:
        return [reader.path for reader in self.readers]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        number = first_record = 0
        for index, reader in enumerate(self.readers):
            last = 0
            for part in until_limit(partial(reader.parts, part_bytes=part_bytes), span=None):
                last = part.first_record + part.num_records
                span = _FileSpan(index, replace(part, payload=None) if not part.is_forward_only else part)
                yield replace(
                    part,
                    number=number,
                    first_record=first_record + part.first_record,
                    span=span,
                    payload=None,
                )
                number += 1
            first_record += last

    def name_of(self, part: Part) -> str:
        path: SourceFile = self.readers[part.span[0]].path
        return path.name

    def read(self, part: Part) -> Iterator[Chunk]:
        """Numbers count over all files; places name the file."""
        index, inner = part.span
        shift = part.first_record - inner.first_record
        name = self.readers[index].path.name
        for chunk in self.readers[index].read(inner):
            chunk.numbers = chunk.numbers + shift
            chunk.bad = [
                BadRecord(bad.record + shift, f"{name} {bad.place}", bad.reason, raw=bad.raw)
                for bad in chunk.bad
            ]
            chunk.split = self._splits[index]
            yield chunk

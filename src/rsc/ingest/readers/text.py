"""Plain text: one file cut into blocks or lines, or a folder or zip with one record a file.

A block is whole paragraphs of together `block_chars`; where blank lines are rare it ends at a line
end, and where line ends are rare between two characters. Blocks put together again are the text as
it was written. Lines lose their line end, and blank lines are not records.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import BYTE_ORDER_MARK, decode_lines, decode_text, not_encoded, readable_name
from rsc.ingest.readers.file_tree import Tree, TreeEntry, group_by_size
from rsc.ingest.readers.lines import (
    MAX_RECORD_BYTES,
    LineEnds,
    cut_at_lines,
    end_notes,
    has_bare_returns,
    read_span,
)
from rsc.ingest.readers.source import CHUNK_BYTES, BadRecord, Chunk, Part, Source, SourceFile
from rsc.store.format.schema import Field

_BLANK_LINES = re.compile(r"\n(?:[ \t\r]*\n)+")
_TEXT = Field("text", "string")


@dataclass
class TextFile(Source):
    """Reader of one file; `.gz` and `.zst` too."""

    path: SourceFile
    options: ImportOptions
    kind: str = field(default="text", init=False)

    def fields(self) -> tuple[Field, ...]:
        return (_TEXT,)

    def files(self) -> list[SourceFile]:
        return [self.path]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        count = None if self.options.records == "lines" else self._num_blocks
        return cut_at_lines(self.path, part_bytes=part_bytes, count=count, ends=self._ends)

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError with the line number for text in another encoding."""
        if part.span.too_long:
            place, reason = f"line {part.span.first_line + 1}", f"{part.size_bytes} bytes without a line end"
            yield _chunk(
                [], [], size_bytes=part.size_bytes, bad=[BadRecord(part.first_record, place, reason)]
            )
        elif self.options.records == "lines":
            yield self._lines(part)
        else:
            text = self._decode(read_span(self.path, part), part.span.first_line)
            blocks = cut_blocks(text, block_chars=self.options.block_chars)
            numbers = range(part.first_record, part.first_record + len(blocks))
            yield _chunk(blocks, numbers, size_bytes=part.size_bytes, notes=end_notes(text[-1:].encode()))

    def _lines(self, part: Part) -> Chunk:
        lines = decode_lines(
            read_span(self.path, part, ends=self._ends),
            name=self.path.name,
            first_line=part.span.first_line,
            options=self.options,
        )
        kept = [(text.rstrip("\r"), number) for text, number in zip(lines.texts, lines.numbers, strict=True)]
        kept = [(text, number) for text, number in kept if text and not text.isspace()]
        texts, numbers = [text for text, _ in kept], [number for _, number in kept]
        notes = end_notes(lines.last_byte)
        return _chunk(texts, numbers, size_bytes=part.size_bytes, bad=list(lines.bad), notes=notes)

    @cached_property
    def _ends(self) -> LineEnds:
        """Whether lines end with a carriage return alone; blocks keep it."""
        return LineEnds(are_returns=self.options.records == "lines" and has_bare_returns(self.path))

    def _num_blocks(self, data: bytes, first_line: int) -> int:
        return len(cut_blocks(self._decode(data, first_line), block_chars=self.options.block_chars))

    def _decode(self, data: bytes, first_line: int) -> str:
        return decode_text(data, first_line=first_line, name=self.path.name, options=self.options)


@dataclass
class TextTree(Source):
    """Reader of a folder or zip: the text of each file and its path inside the folder."""

    root: Path
    options: ImportOptions
    kind: str = field(default="text", init=False)

    def __post_init__(self) -> None:
        self._tree = Tree(self.root)

    def fields(self) -> tuple[Field, ...]:
        return (_TEXT, Field("path", "string"))

    def files(self) -> list[Path]:
        return self._tree.files()

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        if not self._tree.entries():
            raise DataError(f"{self.root} holds no files", hint="hidden files are not looked at")
        return group_by_size(self._tree.entries(), part_bytes=part_bytes)

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for a file in another encoding, unless such files are quarantined."""
        entries = self._tree.entries()
        start, stop = part.span
        while start < stop:
            end, size = start, 0
            while end < stop and size < CHUNK_BYTES:
                size += entries[end].size_bytes
                end += 1
            yield self._chunk(range(start, end), size_bytes=size)
            start = end

    def _chunk(self, indices: range, *, size_bytes: int) -> Chunk:
        texts, paths, numbers, bad = [], [], [], []
        notes: Counter[str] = Counter()
        for index in indices:
            entry = self._tree.entries()[index]
            found = self._record(entry, number=index)
            if isinstance(found, BadRecord):
                bad.append(found)
            else:
                texts.append(found)
                paths.append(readable_name(entry.name, notes=notes))
                numbers.append(index)
        chunk = _chunk(texts, numbers, size_bytes=size_bytes, bad=bad, notes=dict(notes))
        chunk.columns["path"] = paths
        return chunk

    def _record(self, entry: TreeEntry, *, number: int) -> str | BadRecord:
        name = readable_name(entry.name)
        if entry.size_bytes > MAX_RECORD_BYTES:
            return BadRecord(number, name, f"{entry.size_bytes} bytes in one file: too long for a record")
        try:
            data = self._tree.read(entry)
        except DataError as error:
            return BadRecord(number, name, error.message)
        try:
            text = data.decode(self.options.encoding).removeprefix(BYTE_ORDER_MARK)
        except UnicodeDecodeError:
            if self.options.bad_encoding == "stop":
                raise not_encoded(name, data=data, options=self.options) from None
            return BadRecord(number, name, f"not {self.options.encoding.upper()}", raw=data)
        return text if text.strip() else BadRecord(number, name, "no text in it", raw=data)


def cut_blocks(text: str, *, block_chars: int) -> list[str]:
    """Blocks that joined are `text`; each but the last has `block_chars` to 16 times as many characters."""
    blocks, start = [], 0
    while start < len(text):
        stop = _block_end(text, start, block_chars=block_chars)
        blocks.append(text[start:stop])
        start = stop
    return blocks


def _block_end(text: str, start: int, *, block_chars: int) -> int:
    least = start + block_chars
    if least >= len(text):
        return len(text)
    blank = _BLANK_LINES.search(text, least - 1, start + 4 * block_chars)
    if blank:
        return blank.end()
    line_end = text.find("\n", least - 1, start + 16 * block_chars)
    return line_end + 1 if line_end >= 0 else min(start + 16 * block_chars, len(text))


def _chunk(
    texts: list[str],
    numbers: range | list[int],
    *,
    size_bytes: int,
    bad: list[BadRecord] | None = None,
    notes: dict[str, int] | None = None,
) -> Chunk:
    return Chunk(
        columns={"text": texts},
        numbers=np.array(numbers, dtype=np.uint64),
        size_bytes=size_bytes,
        bad=bad or [],
        notes=notes or {},
    )

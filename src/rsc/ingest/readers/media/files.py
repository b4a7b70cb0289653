"""Folders and zips of pictures or sounds, with labels from folders or file names, and captions.

    [train|test|validation/]<class>/<name>.jpg       the class folder becomes `label`
    <name>.wav with label_pattern={label}_{speaker}   parts of the name become fields
    <name>.jpg beside <name>.txt                      the text becomes `text`
    metadata.jsonl or metadata.csv with file_name     its other fields

Fields: `image` or `audio` (the file as given, or decoded), then what was found of `label`, the
pattern's and metadata's names and `text`, then `path`. What deviates is told by layout.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.chunks import note_chunk
from rsc.ingest.readers.encoding import BYTE_ORDER_MARK, readable_name
from rsc.ingest.readers.file_tree import Tree, TreeEntry, group_by_size, several_names
from rsc.ingest.readers.media import metadata
from rsc.ingest.readers.media.codec import AUDIO_SUFFIXES, IMAGE_SUFFIXES, MediaCodec
from rsc.ingest.readers.media.layout import Item, MediaLayout, lay_out, stem
from rsc.ingest.readers.source import CHUNK_BYTES, BadRecord, Chunk, Part, Source
from rsc.review.media.recognise import medium_of
from rsc.store.format.schema import Field

_CAPTION = ".txt"
_SUFFIXES_NAMED = 8  # of files that are left out


@dataclass
class MediaTree(Source):
    """Reader of one folder or archive."""

    root: Path
    options: ImportOptions
    medium: Literal["image", "audio"]

    def __post_init__(self) -> None:
        self._tree = Tree(self.root)
        self._codec = MediaCodec(self.medium, self.options)

    @property
    def kind(self) -> str:
        return "images" if self.medium == "image" else "audio"

    def fields(self) -> tuple[Field, ...]:
        strings = [*self._layout.string_names, *(["text"] if self._layout.has_captions else []), "path"]
        return (self._codec.field(self.medium), *(Field(name, "string") for name in strings))

    def media(self) -> dict[str, str]:
        return {self.medium: self.medium}

    def splits(self) -> tuple[str, ...]:
        found = {item.split for item in self._layout.items if item.split and not item.refusal}
        return tuple(name for name in ("train", "validation", "test") if name in found)

    def taken(self) -> list[tuple[str, str]]:
        return self._layout.taken

    def files(self) -> list[Path]:
        return self._tree.files()

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        return group_by_size([item.entry for item in self._layout.items], part_bytes=part_bytes)

    def name_of(self, part: Part) -> str:
        return several_names([item.entry.name for item in self._layout.items[slice(*part.span)]])

    def read(self, part: Part) -> Iterator[Chunk]:
        """Chunks of one split each. A file that does not decode or deviates is a bad record."""
        items = self._layout.items
        start, stop = part.span
        while start < stop:
            end, size = start, 0
            split = items[start].split
            while end < stop and size < CHUNK_BYTES and items[end].split == split:
                size += items[end].entry.size_bytes
                end += 1
            yield self._chunk(range(start, end), split=split, size_bytes=size)
            start = end
        if stop == len(items) and self._left_out:
            yield note_chunk(self._left_out)

    def _chunk(self, numbers: range, *, split: str | None, size_bytes: int) -> Chunk:
        columns: dict[str, list[Any]] = {item.name: [] for item in self.fields()}
        kept, bad = [], []
        notes: Counter[str] = Counter()
        for number in numbers:
            item = self._layout.items[number]
            data = b""
            try:
                data = self._tree.read(item.entry)
                if item.refusal:
                    raise DataError(item.refusal)
                record = {
                    self.medium: self._codec.value(data, notes=notes),
                    **self._strings(item, notes=notes),
                }
            except DataError as error:
                bad.append(BadRecord(number, readable_name(item.entry.name), error.message, raw=data))
                continue
            kept.append(number)
            for name, column in columns.items():
                column.append(record[name])
        return Chunk(
            columns=dict(columns),
            numbers=np.array(kept, dtype=np.uint64),
            size_bytes=size_bytes,
            bad=bad,
            split=split,
            notes=dict(notes),
        )

    def _strings(self, item: Item, *, notes: Counter[str]) -> dict[str, str]:
        strings = {**item.strings, "path": readable_name(item.entry.name, notes=notes)}
        if item.caption is not None:
            strings["text"] = _caption_text(self._tree.read(item.caption), encoding=self.options.encoding)
        return strings

    @cached_property
    def _layout(self) -> MediaLayout:
        texts = {stem(entry): entry for entry in self._tree.entries() if entry.suffix == _CAPTION}
        found = metadata.read_metadata(self._tree, options=self.options)
        return lay_out(self._entries, texts=texts, metadata=found, options=self.options)

    @cached_property
    def _entries(self) -> list[TreeEntry]:
        found = [entry for entry in self._tree.entries() if self._is_wanted(entry)]
        if not found:
            suffixes = sorted(IMAGE_SUFFIXES if self.medium == "image" else AUDIO_SUFFIXES)
            raise DataError(f"{self.root} holds no {self.medium} files", hint=f"known: {', '.join(suffixes)}")
        return found

    def _is_wanted(self, entry: TreeEntry) -> bool:
        """By the suffix where it is one of ours, else by the first bytes."""
        if entry.suffix in IMAGE_SUFFIXES | AUDIO_SUFFIXES:
            return entry.suffix in (IMAGE_SUFFIXES if self.medium == "image" else AUDIO_SUFFIXES)
        if entry.suffix == _CAPTION or PurePosixPath(entry.name).name in metadata.NAMES:
            return False
        return medium_of(self._tree.beginning(entry)) == self.medium

    @cached_property
    def _left_out(self) -> dict[str, int]:
        """Files that are neither records nor captions nor metadata, by suffix."""
        used = {id(item.entry) for item in self._layout.items}
        used |= {id(item.caption) for item in self._layout.items if item.caption is not None}
        others = [
            entry
            for entry in self._tree.entries()
            if id(entry) not in used and PurePosixPath(entry.name).name not in metadata.NAMES
        ]
        counts = Counter(entry.suffix or "no suffix" for entry in others).most_common()
        notes = {
            f"files that are no {self.medium}, left out ({suffix})": n
            for suffix, n in counts[:_SUFFIXES_NAMED]
        }
        rest = sum(count for _, count in counts[_SUFFIXES_NAMED:])
        return notes | ({f"files that are no {self.medium}, left out (others)": rest} if rest else {})


def _caption_text(data: bytes, *, encoding: str) -> str:
    """Raises DataError when a caption is blank or in another encoding."""
    try:
        text = data.decode(encoding).removeprefix(BYTE_ORDER_MARK).strip()
    except UnicodeDecodeError:
        raise DataError(f"its caption is not {encoding.upper()}") from None
    if not text:
        raise DataError("its caption is blank")
    return text

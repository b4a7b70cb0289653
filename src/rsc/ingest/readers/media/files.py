"""Folders and zips of pictures or sounds, with labels from folders or file names, and captions.

    [train|test|validation/]<class>/<name>.jpg       the class folder becomes `label`
    <name>.wav with label_pattern={label}_{speaker}   parts of the name become fields
    <name>.jpg beside <name>.txt                      the text becomes `text`

Fields: `image` or `audio` (the file as given, or decoded), then what was found of `label`, the
pattern's names and `text`, then `path`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.chunks import note_chunk
from rsc.ingest.readers.file_tree import Entry, Tree, group_by_size
from rsc.ingest.readers.media.codec import AUDIO_SUFFIXES, IMAGE_SUFFIXES, MediaCodec
from rsc.ingest.readers.source import CHUNK_BYTES, BadRecord, Chunk, Part, Source
from rsc.ingest.readers.split_names import SPLIT_NAMES
from rsc.store.format.schema import Field

_CAPTION = ".txt"
_SHOWN = 12  # values of a field that a message lists


@dataclass(frozen=True)
class _Item:
    """One record: its file, its split and the strings that its path tells."""

    entry: Entry
    split: str | None
    strings: dict[str, str]
    caption: Entry | None


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
        strings = [*self._string_names, *(["text"] if self._has_captions else []), "path"]
        return (self._codec.field(self.medium), *(Field(name, "string") for name in strings))

    def media(self) -> dict[str, str]:
        return {self.medium: self.medium}

    def splits(self) -> tuple[str, ...]:
        found = {item.split for item in self._items if item.split}
        return tuple(name for name in ("train", "validation", "test") if name in found)

    def files(self) -> list[Path]:
        return self._tree.files()

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        return group_by_size([item.entry for item in self._items], part_bytes=part_bytes)

    def read(self, part: Part) -> Iterator[Chunk]:
        """Chunks of one split each. A file that does not decode is a bad record."""
        start, stop = part.span
        while start < stop:
            end, size = start, 0
            split = self._items[start].split
            while end < stop and size < CHUNK_BYTES and self._items[end].split == split:
                size += self._items[end].entry.size_bytes
                end += 1
            yield self._chunk(range(start, end), split=split, size_bytes=size)
            start = end
        if stop == len(self._items) and self._num_others:
            yield note_chunk({f"files that are no {self.medium}, left out": self._num_others})

    def _chunk(self, numbers: range, *, split: str | None, size_bytes: int) -> Chunk:
        columns: dict[str, list[Any]] = {item.name: [] for item in self.fields()}
        kept, bad = [], []
        notes: Counter[str] = Counter()
        for number in numbers:
            item = self._items[number]
            data = b""
            try:
                data = self._tree.read(item.entry)
                record = {self.medium: self._codec.value(data, notes=notes), **self._strings(item)}
            except DataError as error:
                bad.append(BadRecord(number, item.entry.name, error.message, raw=data))
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

    def _strings(self, item: _Item) -> dict[str, str]:
        strings = {**item.strings, "path": item.entry.name}
        if self._has_captions:
            caption = self._tree.read(item.caption) if item.caption else b""
            strings["text"] = _caption_text(caption, encoding=self.options.encoding)
        return strings

    @cached_property
    def _entries(self) -> list[Entry]:
        suffixes = IMAGE_SUFFIXES if self.medium == "image" else AUDIO_SUFFIXES
        found = [entry for entry in self._tree.entries() if entry.suffix in suffixes]
        if not found:
            raise DataError(
                f"{self.root} holds no {self.medium} files", hint=f"known: {', '.join(sorted(suffixes))}"
            )
        return found

    @cached_property
    def _captions(self) -> dict[str, Entry]:
        """Texts by the path they share with a picture or sound."""
        stems = {_stem(entry) for entry in self._entries}
        texts = (entry for entry in self._tree.entries() if entry.suffix == _CAPTION)
        return {_stem(entry): entry for entry in texts if _stem(entry) in stems}

    @property
    def _has_captions(self) -> bool:
        return bool(self._captions)

    @property
    def _num_others(self) -> int:
        return len(self._tree.entries()) - len(self._entries) - len(self._captions)

    @cached_property
    def _items(self) -> list[_Item]:
        has_splits = all(entry.folders and entry.folders[0].lower() in SPLIT_NAMES for entry in self._entries)
        folders = {entry.folders[has_splits:][:1] for entry in self._entries}
        has_classes = len(folders) > 1 and () not in folders and self.options.label_pattern is None
        items = [self._item(entry, has_splits=has_splits, has_classes=has_classes) for entry in self._entries]
        if self.options.test_where is not None:
            _require_both_splits(items, test_where=self.options.test_where)
        return items

    def _item(self, entry: Entry, *, has_splits: bool, has_classes: bool) -> _Item:
        split = SPLIT_NAMES[entry.folders[0].lower()] if has_splits else None
        strings = {"label": entry.folders[has_splits]} if has_classes else {}
        if self._pattern is not None:
            strings |= self._parse_name(entry)
        if self.options.test_where is not None:
            name, _, values = self.options.test_where.partition("=")
            if name not in strings:
                raise ConfigError(
                    f"test_where: there is no field {name!r}",
                    hint=f"there are: {', '.join(strings) or 'none'}",
                )
            split = "test" if strings[name] in values.split(",") else "train"
        return _Item(entry, split, strings, self._captions.get(_stem(entry)))

    def _parse_name(self, entry: Entry) -> dict[str, str]:
        assert self._pattern is not None
        stem = PurePosixPath(entry.name).stem
        match = self._pattern.fullmatch(stem)
        if match is None:
            raise DataError(
                f"{entry.name} does not fit label_pattern {self.options.label_pattern}",
                hint="every file name has to; import the others from a folder of their own",
            )
        return match.groupdict()

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return None if self.options.label_pattern is None else name_pattern(self.options.label_pattern)

    @property
    def _string_names(self) -> Sequence[str]:
        return tuple(self._items[0].strings)


def name_pattern(text: str) -> re.Pattern[str]:
    """`{label}_{speaker}` as a regular expression; each name takes as little as it can.

    Raises ConfigError for a pattern without names, or with one twice.
    """
    pieces = re.split(r"\{([a-z][a-z0-9_]*)\}", text)
    names = pieces[1::2]
    if not names or len(set(names)) != len(names) or {"text", "path", "image", "audio"} & set(names):
        raise ConfigError(
            f"label_pattern {text!r} is not usable", hint="for example {label}_{speaker}_{index}"
        )
    return re.compile(
        "".join(f"(?P<{piece}>.+?)" if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces))
    )


def _require_both_splits(items: Sequence[_Item], *, test_where: str) -> None:
    """Raise ConfigError when `test_where` fits no file or all: then nothing is held out, or nothing left."""
    name = test_where.partition("=")[0]
    if {item.split for item in items} == {"train", "test"}:
        return
    there = sorted({item.strings[name] for item in items})
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN:,} more" if len(there) > _SHOWN else "")
    fits = "every file" if items[0].split == "test" else "no file"
    raise ConfigError(f"test_where: {test_where} fits {fits}", hint=f"{name} is one of: {shown}")


def _stem(entry: Entry) -> str:
    return entry.name.removesuffix(PurePosixPath(entry.name).suffix)


def _caption_text(data: bytes, *, encoding: str) -> str:
    """Raises DataError when a caption is in another encoding."""
    try:
        return data.decode(encoding).strip()
    except UnicodeDecodeError:
        raise DataError(f"its caption is not {encoding.upper()}") from None

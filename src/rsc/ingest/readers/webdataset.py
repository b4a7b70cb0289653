"""WebDataset: tar files in which neighbouring members with one stem are one sample.

    000017.jpg 000017.cls 000017.txt  ->  image, label, text

| ending                         | field                                            |
|--------------------------------|--------------------------------------------------|
| jpg jpeg png webp ...          | `image`                                          |
| wav flac ogg mp3               | `audio`                                          |
| txt text caption               | `text`                                           |
| cls                            | `label` (text)                                   |
| json                           | `json` (text)                                    |
| others                         | named by the ending; picture, sound, text or     |
|                                | bytes, whichever the first samples hold          |

A field is an ending that at least half as many of the first samples have as the most frequent one. The
stem, to the first dot, is stored as `key`. Pickles (`pyd`, `pickle`) are stored as bytes and never opened.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.chunks import Row, chunks
from rsc.ingest.readers.encoding import BYTE_ORDER_MARK, readable_name
from rsc.ingest.readers.file_tree import MAX_FILE_BYTES
from rsc.ingest.readers.media.codec import AUDIO_SUFFIXES, IMAGE_SUFFIXES, MediaCodec
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source, until_limit
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.ingest.readers.tar_members import TarMember, is_tar, tar_members
from rsc.review.media.recognise import is_text, medium_of
from rsc.store.format.schema import Field

_SAMPLES_LOOKED_AT = 100
_BYTES_LOOKED_AT = 1 << 14  # of each file of those: two frames of MP3, and enough of a text
_TEXTS = {"txt": "text", "text": "text", "caption": "text", "cls": "label", "json": "json"}

_Content = Literal["image", "audio", "text", "bytes"]


class _Sample(NamedTuple):
    """Neighbouring members of one key; `notes` count what stood before it and is no part of any."""

    key: str
    members: list[TarMember]
    notes: tuple[str, ...] = ()
    is_split: bool = False
    """Other members of this key stood earlier in the same tar."""


class _TarSpan(NamedTuple):
    path: Path
    samples: list[_Sample]


class _Kind(NamedTuple):
    """A field of the store, and what its files hold."""

    field: Field
    content: _Content


@dataclass
class TarShards(Source):
    """Reader of one tar, packed or not, or of all tars in a folder in order of their names."""

    root: Path
    options: ImportOptions
    kind: str = field(default="webdataset", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(kind.field for kind in self._sources.values())

    def media(self) -> dict[str, str]:
        return {
            kind.field.name: kind.content
            for kind in self._sources.values()
            if kind.content in ("image", "audio")
        }

    def files(self) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        found = sorted(path for path in self.root.iterdir() if is_tar(path))
        if not found:
            raise DataError(f"{self.root} holds no tar files", hint="folders inside it are not looked into")
        return found

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Of several tars, one that passes a limit is set aside by name where that is seen."""
        number = first_record = 0
        files = self.files()
        for path in files:
            find = partial(_parts_of, path, part_bytes=part_bytes)
            for part in find() if len(files) == 1 else until_limit(find, span=_TarSpan(path, [])):
                yield replace(part, number=number, first_record=first_record)
                number, first_record = number + 1, first_record + part.num_records

    def name_of(self, part: Part) -> str:
        path: Path = part.span.path
        return path.name

    def read(self, part: Part) -> Iterator[Chunk]:
        yield from chunks(self._rows(part.span, first_record=part.first_record), fields=self.fields())

    def _rows(self, span: _TarSpan, *, first_record: int) -> Iterator[Row]:
        with span.path.open("rb") as file:
            for number, sample in enumerate(span.samples, start=first_record):
                files: dict[str, bytes] = {}
                for member in sample.members:
                    if member.data is None:
                        file.seek(member.start)
                    files[_name_of(_ending(member))] = (
                        file.read(min(member.size, MAX_FILE_BYTES)) if member.data is None else member.data
                    )
                size = sum(map(len, files.values()))
                notes: Counter[str] = Counter([*sample.notes, *self._left_out(files)])
                values = _unusable(sample, number) or self._values(sample, files, number=number, notes=notes)
                yield Row(number, values, size, tuple(notes.elements()))

    def _left_out(self, files: Collection[str]) -> Iterator[str]:
        """Endings that are no field, where all are wanted."""
        if self.options.fields is None and not self._sources.keys().isdisjoint(files):
            yield from (f"files .{name} beside a sample, which few of the first samples have: left out"
                        for name in files if name not in self._sources)  # fmt: skip

    def _values(
        self, sample: _Sample, files: dict[str, bytes], *, number: int, notes: Counter[str]
    ) -> dict[str, Any] | BadRecord:
        values: dict[str, Any] = {}
        for source_name, kind in self._sources.items():
            try:
                if source_name == "key":
                    values["key"] = readable_name(sample.key, notes=notes)
                elif source_name in files:
                    values[kind.field.name] = self._value(source_name, kind, files[source_name], notes=notes)
                else:
                    raise DataError(_missing(sample, source_name))
            except DataError as error:
                place = f"sample {readable_name(sample.key)}"
                return BadRecord(number, place, error.message, raw=next(iter(files.values()), b""))
        return values

    def _value(self, source_name: str, kind: _Kind, data: bytes, *, notes: Counter[str]) -> Any:
        if kind.content in ("image", "audio"):
            return MediaCodec(kind.content, self.options).value(data, notes=notes)
        if kind.content == "bytes":
            return data
        try:
            text = data.decode(self.options.encoding).removeprefix(BYTE_ORDER_MARK)
        except UnicodeDecodeError:
            name, encoding = kind.field.name, self.options.encoding.upper()
            raise DataError(f"field {name!r} is not {encoding}") from None
        return text.strip() if source_name == "label" else text

    @cached_property
    def _sources(self) -> dict[str, _Kind]:
        """Fields of the first samples, by what they are called in the tar."""
        looked_at = self._first_samples()
        seen = Counter(name for files in looked_at for name in files)
        if not seen:
            raise DataError(
                f"{self.root.name} holds no samples", hint="a sample is files of one stem: 7.jpg, 7.cls"
            )
        usual = [name for name, count in sorted(seen.items()) if 2 * count >= max(seen.values())]
        there = [*(usual if self.options.fields is None else sorted(seen)), "key"]
        names = chosen_names(there, options=self.options)
        contents = {
            name: _content(name, [files[name] for files in looked_at if name in files]) for name in names
        }
        texts = [name for name in names if name == "text"]
        stored = stored_names(names, texts=texts, options=self.options)
        return {name: self._kind(stored[name], contents[name]) for name in names}

    def _first_samples(self) -> list[dict[str, bytes]]:
        """The beginnings of the files of the first samples, over as many tars as it takes."""
        found: list[dict[str, bytes]] = []
        for path in self.files():
            with path.open("rb") as file, contextlib.suppress(LimitPassed):  # `parts` meets it again
                for sample in islice(_samples(path), _SAMPLES_LOOKED_AT - len(found)):
                    found.append(
                        {_name_of(_ending(member)): _beginning(member, file) for member in sample.members}
                    )
            if len(found) == _SAMPLES_LOOKED_AT:
                break
        return found

    def _kind(self, name: str, content: _Content) -> _Kind:
        if content in ("image", "audio"):
            return _Kind(MediaCodec(content, self.options).field(name), content)
        return _Kind(Field(name, "string" if content == "text" else "bytes"), content)


def _content(name: str, files: Sequence[bytes]) -> _Content:
    """What a field holds: by its name where that is one of ours, else what all its files look like."""
    if name in ("image", "audio"):
        return name  # type: ignore[return-value]
    if name in (*_TEXTS.values(), "key"):
        return "text"
    media = {medium_of(data) for data in files}
    if media in ({"image"}, {"audio"}):
        return media.pop()  # type: ignore[return-value]
    return "text" if files and all(is_text(data) for data in files) else "bytes"


def _beginning(member: TarMember, file: BinaryIO) -> bytes:
    if member.data is not None or member.refusal:
        return (member.data or b"")[:_BYTES_LOOKED_AT]
    file.seek(member.start)
    return file.read(min(member.size, _BYTES_LOOKED_AT))


def _missing(sample: _Sample, source_name: str) -> str:
    if sample.is_split:
        return "its key stood before: the files of a sample have to be neighbours in the tar"
    return f"no file for field {source_name!r}"


def _unusable(sample: _Sample, number: int) -> BadRecord | None:
    """A sample that cannot be one record: a file is a link or too large, or two would be the same field."""
    names = [_name_of(_ending(member)) for member in sample.members]
    place = f"sample {readable_name(sample.key)}"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return BadRecord(number, place, f"two files for field {twice!r}")
    for member in sample.members:
        if member.refusal:
            return BadRecord(number, place, f"file .{_ending(member)} {member.refusal}")
    largest = max(member.size for member in sample.members)
    if largest > MAX_FILE_BYTES:
        return BadRecord(number, place, f"{largest} bytes in one file: too long for a record")
    return None


def _name_of(ending: str) -> str:
    if f".{ending}" in IMAGE_SUFFIXES:
        return "image"
    return "audio" if f".{ending}" in AUDIO_SUFFIXES else _TEXTS.get(ending, ending)


def _ending(member: TarMember) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _key(member: TarMember) -> str:
    folder, slash, base = member.name.rpartition("/")
    stem = base.partition(".")[0]
    return folder + slash + stem if stem else ""


def _parts_of(path: Path, *, part_bytes: int) -> Iterator[Part]:
    """Of one tar; numbers and records count from its beginning."""
    number = first_record = size = 0
    samples: list[_Sample] = []
    for sample in _samples(path):
        samples.append(sample)
        size += sum(member.size for member in sample.members)
        if size >= part_bytes:
            yield Part(number, first_record, size, _TarSpan(path, samples), num_records=len(samples))
            number, first_record = number + 1, first_record + len(samples)
            samples, size = [], 0
    if samples:
        yield Part(number, first_record, size, _TarSpan(path, samples), num_records=len(samples))


def _samples(path: Path) -> Iterator[_Sample]:
    """Samples in the order of the archive. Raises DataError when it is damaged."""
    key = ""
    members: list[TarMember] = []
    notes: list[str] = []
    seen: set[int] = set()
    for member in tar_members(path):
        name = _key(member)
        if not name:
            notes.append("hidden members of a tar: left out")
            continue
        if name != key and members:
            yield _Sample(key, members, tuple(notes), hash(key) in seen)
            seen.add(hash(key))
            members, notes = [], []
        key = name
        members.append(member)
        if "." in _ending(member):
            notes.append("members with several dots in their name: the key ends at the first")
    if members:
        yield _Sample(key, members, tuple(notes), hash(key) in seen)

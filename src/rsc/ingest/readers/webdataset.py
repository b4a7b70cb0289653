"""WebDataset: tar files in which neighbouring members with one stem are one sample.

    000017.jpg 000017.cls 000017.txt  ->  image, label, text

| ending                         | field                        |
|--------------------------------|------------------------------|
| jpg jpeg png webp ...          | `image`                      |
| wav flac ogg mp3               | `audio`                      |
| txt text caption               | `text`                       |
| cls                            | `label` (text)               |
| json                           | `json` (text)                |
| others                         | bytes, named by the ending   |

The stem is stored as `key`. Pickles (`pyd`, `pickle`) are stored as bytes and never opened.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.chunks import Row, chunks
from rsc.ingest.readers.file_tree import MAX_FILE_BYTES
from rsc.ingest.readers.media.codec import AUDIO_SUFFIXES, IMAGE_SUFFIXES, MediaCodec
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.store.format.schema import Field

_SAMPLES_LOOKED_AT = 100
_TEXTS = {"txt": "text", "text": "text", "caption": "text", "cls": "label", "json": "json"}


class _Member(NamedTuple):
    """A file of a sample: where it lies in an unpacked tar, or its bytes from a packed one.

    A hard or symbolic link has neither: what it points to may lie anywhere.
    """

    ending: str
    start: int
    size: int
    data: bytes | None
    is_link: bool = False


class _Sample(NamedTuple):
    key: str
    members: list[_Member]


class _Span(NamedTuple):
    path: Path
    samples: list[_Sample]


@dataclass
class TarShards(Source):
    """Reader of one tar, or of all tars in a folder in order of their names; `.tar.gz` too."""

    root: Path
    options: ImportOptions
    kind: str = field(default="webdataset", init=False)

    def fields(self) -> tuple[Field, ...]:
        return tuple(self._fields.values())

    def media(self) -> dict[str, str]:
        return {name: name for name in ("image", "audio") if name in self._fields}

    def files(self) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        found = sorted(path for path in self.root.iterdir() if is_tar(path))
        if not found:
            raise DataError(f"{self.root} holds no tar files", hint="folders inside it are not looked into")
        return found

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        number = first_record = 0
        for path in self.files():
            samples: list[_Sample] = []
            size = 0
            for sample in _samples(path):
                samples.append(sample)
                size += sum(member.size for member in sample.members)
                if size >= part_bytes:
                    yield Part(number, first_record=first_record, size_bytes=size, span=_Span(path, samples))
                    number, first_record = number + 1, first_record + len(samples)
                    samples, size = [], 0
            if samples:
                yield Part(number, first_record=first_record, size_bytes=size, span=_Span(path, samples))
                number, first_record = number + 1, first_record + len(samples)

    def read(self, part: Part) -> Iterator[Chunk]:
        yield from chunks(self._rows(part.span, first_record=part.first_record), fields=self.fields())

    def _rows(self, span: _Span, *, first_record: int) -> Iterator[Row]:
        with span.path.open("rb") as file:
            for number, sample in enumerate(span.samples, start=first_record):
                files: dict[str, bytes] = {}
                for member in sample.members:
                    if member.data is None:
                        file.seek(member.start)
                    files[_name_of(member.ending)] = (
                        file.read(min(member.size, MAX_FILE_BYTES)) if member.data is None else member.data
                    )
                size = sum(map(len, files.values()))
                notes: Counter[str] = Counter(self._left_out(files))
                values = _too_much(sample, number) or self._values(
                    sample.key, files, number=number, notes=notes
                )
                yield Row(number, values, size, tuple(notes.elements()))

    def _left_out(self, files: Collection[str]) -> Iterator[str]:
        """Endings that were not among the first samples', where all are wanted."""
        if self.options.fields is None:
            yield from (f"files .{name} are not in the first samples: left out" for name in files
                        if name not in self._sources)  # fmt: skip

    def _values(
        self, key: str, files: dict[str, bytes], *, number: int, notes: Counter[str]
    ) -> dict[str, Any] | BadRecord:
        values: dict[str, Any] = {}
        for source_name, item in self._sources.items():
            try:
                values[item.name] = self._value(source_name, item, key=key, files=files, notes=notes)
            except DataError as error:
                return BadRecord(number, f"sample {key}", error.message, raw=files.get(source_name, b""))
        return values

    def _value(
        self, source_name: str, item: Field, *, key: str, files: dict[str, bytes], notes: Counter[str]
    ) -> Any:
        if source_name == "key":
            return key
        if source_name not in files:
            raise DataError(f"no file for field {item.name!r}")
        data = files[source_name]
        if source_name in ("image", "audio"):
            return MediaCodec(source_name, self.options).value(data, notes=notes)  # type: ignore[arg-type]
        if item.kind != "string":
            return data
        try:
            return data.decode(self.options.encoding)
        except UnicodeDecodeError:
            raise DataError(f"field {item.name!r} is not {self.options.encoding.upper()}") from None

    @property
    def _fields(self) -> dict[str, Field]:
        return {item.name: item for item in self._sources.values()}

    @cached_property
    def _sources(self) -> dict[str, Field]:
        """Fields of the first samples, by what they are called in the tar."""
        seen: Counter[str] = Counter()
        for sample in islice(_samples(self.files()[0]), _SAMPLES_LOOKED_AT):
            seen.update({_name_of(member.ending) for member in sample.members})
        if not seen:
            raise DataError(
                f"{self.files()[0].name} holds no samples", hint="a sample is files of one stem: 7.jpg, 7.cls"
            )
        names = chosen_names([*sorted(seen), "key"], options=self.options)
        texts = [name for name in names if name in _TEXTS.values()]
        stored = stored_names(names, texts=[n for n in texts if n == "text"], options=self.options)
        return {name: self._field(name, stored[name]) for name in names}

    def _field(self, source_name: str, name: str) -> Field:
        if source_name in ("image", "audio"):
            return MediaCodec(source_name, self.options).field(name)  # type: ignore[arg-type]
        return Field(name, "string" if source_name in (*_TEXTS.values(), "key") else "bytes")


def _too_much(sample: _Sample, number: int) -> BadRecord | None:
    """A sample that cannot be one record: a file is a link or too large, or two would be the same field."""
    names = [_name_of(member.ending) for member in sample.members]
    place = f"sample {sample.key}"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return BadRecord(number, place, f"two files for field {twice!r}")
    for member in sample.members:
        if member.is_link:
            return BadRecord(number, place, f"file .{member.ending} is a link, which is not followed")
    largest = max(member.size for member in sample.members)
    if largest > MAX_FILE_BYTES:
        return BadRecord(number, place, f"{largest} bytes in one file: too long for a record")
    return None


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _name_of(ending: str) -> str:
    if f".{ending}" in IMAGE_SUFFIXES:
        return "image"
    return "audio" if f".{ending}" in AUDIO_SUFFIXES else _TEXTS.get(ending, ending)


def _samples(path: Path) -> Iterator[_Sample]:
    """Samples in the order of the archive. Raises DataError when it is damaged."""
    is_packed = not path.name.lower().endswith(".tar")
    key = ""
    members: list[_Member] = []
    try:
        with tarfile.open(path, "r|*" if is_packed else "r:") as archive:
            for info in archive:
                folder, slash, base = info.name.rpartition("/")
                stem, _, ending = base.partition(".")
                is_link = info.islnk() or info.issym()
                if not (info.isfile() or is_link) or not stem:
                    continue
                if (name := folder + slash + stem) != key and members:
                    yield _Sample(key, members)
                    members = []
                wanted = is_packed and not is_link and info.size <= MAX_FILE_BYTES
                extracted = archive.extractfile(info) if wanted else None
                data = extracted.read() if extracted is not None else b"" if is_packed else None
                key = name
                members.append(_Member(ending.lower(), info.offset_data, info.size, data, is_link))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{path.name} is not a whole tar archive: {error}",
            hint="the file was cut short or is not what its name says; fetch it again",
        ) from None
    if members:
        yield _Sample(key, members)

"""Samples for a trained model from a file, a folder, or standard input.

| model reads | takes                                                                                  |
|-------------|----------------------------------------------------------------------------------------|
| text        | .jsonl and .csv/.tsv with the model's text field, or text: a sample a line             |
| image       | one picture                                                                            |
| sound       | one recording                                                                          |
| several     | .jsonl or .csv; picture and sound fields hold paths beside the file                    |

A folder gives the samples of its files in order of their names; hidden ones are left out. `-` is standard
input: a picture or a recording, or lines of text, which are JSON where the first of them is an object.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsc.errors import ConfigError, DataError
from rsc.loader.ragged import RaggedTensor
from rsc.models.config import AudioConfig, ImageConfig, ModelConfig, TextConfig
from rsc.train.batches.collate import Column

STDIN = "-"
_CSV = (".csv", ".tsv")
_UNREAD = (".json", ".parquet", ".arrow", ".feather", ".xlsx", ".gz", ".zip")  # their lines are no samples
_TEXT = (".jsonl", ".txt", *_CSV, *_UNREAD)
_MOST_CELL = 1 << 30  # characters; the csv module refuses cells above 131,072 by default


@dataclass(frozen=True)
class FileSample:
    place: str
    """`cat.jpg`, `posts.jsonl line 3`, `posts.csv row 3`."""
    columns: dict[str, Column]
    """A batch of one."""


def require_source(name: str) -> None:
    """Raise ConfigError for what is neither a file nor a folder with files, with a hint at one that is."""
    path = Path(name)
    if name == STDIN or path.is_file():
        return
    if path.is_dir():
        if not any(_files_in(path)):
            raise ConfigError(f"{path} holds no files", hint="give a folder with samples, or one file")
        return
    if path.exists():
        raise ConfigError(f"{path} is neither a file nor a folder", hint="pipe it in, and give - as the file")
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {path.parent / close[0]}?" if close else f"looked in {path.parent.absolute()}"
    raise ConfigError(f"{path} does not exist", hint=hint)


def read_samples(name: str, *, config: ModelConfig, text_field: str | None = None) -> Iterator[FileSample]:
    """The samples of a source. `text_field` is what the source calls the model's text.

    Raises ConfigError for a source that cannot be read or is of another kind than the model reads,
    DataError for a line that is no sample.
    """
    require_source(name)
    reader = _Reader(config, text_field or (config.text.field if config.text is not None else ""))
    if name == STDIN:
        yield from reader.of_stdin(sys.stdin.buffer.read())
    elif Path(name).is_dir():
        for file in _files_in(Path(name)):
            yield from reader.of_file(file, place=str(file.relative_to(name)), is_chosen=False)
    else:
        yield from reader.of_file(Path(name), place=Path(name).name, is_chosen=True)


def _files_in(folder: Path) -> Iterator[Path]:
    """Files at any depth by name; no links to folders are followed, nothing hidden is taken."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (
            file for name in sorted(names) if name[0] != "." and (file := Path(place) / name).is_file()
        )


@dataclass(frozen=True)
class _Reader:
    config: ModelConfig
    text_field: str

    def of_file(self, file: Path, *, place: str, is_chosen: bool) -> Iterator[FileSample]:
        """`is_chosen`: the file itself was named, so that a wrong kind is the caller's mistake; in a folder
        a file that is no picture is a sample that cannot be read."""
        media = self._only_media()
        if media is not None:
            if is_chosen and file.suffix.lower() in _TEXT:
                raise ConfigError(
                    f"{place} is text, and {media!r} is all that the model reads",
                    hint="give one picture or recording, or a folder of them",
                )
            yield FileSample(place, {media: _bytes(_read(file))})
        elif file.suffix.lower() in _UNREAD:
            raise ConfigError(
                f"{place} is neither text of one sample a line, nor .jsonl, nor .csv", hint=self._line_hint()
            )
        elif file.suffix.lower() in _CSV:
            yield from self._of_table(_read(file), place=place, folder=file.parent)
        else:
            is_json = file.suffix.lower() == ".jsonl"
            yield from self._of_lines(_read(file), place=f"{place} ", folder=file.parent, is_json=is_json)

    def of_stdin(self, data: bytes) -> Iterator[FileSample]:
        media = self._only_media()
        if media is not None:
            yield FileSample("standard input", {media: _bytes(data)})
            return
        first = next(filter(bytes.strip, data.splitlines()), b"")
        yield from self._of_lines(data, place="", folder=Path.cwd(), is_json=_is_object(first))

    def _of_lines(self, data: bytes, *, place: str, folder: Path, is_json: bool) -> Iterator[FileSample]:
        for number, line in enumerate(data.splitlines(), start=1):
            where = f"{place}line {number}"
            if not line.strip():
                continue
            if is_json:
                yield FileSample(where, self._record(_object(line, where, self._line_hint()), where, folder))
            elif len(_stems(self.config)) == 1:
                yield FileSample(where, {_stems(self.config)[0].field: _bytes(line)})
            else:
                raise ConfigError(
                    f"{where}: a model of several inputs takes .jsonl or .csv", hint=self._line_hint()
                )

    def _of_table(self, data: bytes, *, place: str, folder: Path) -> Iterator[FileSample]:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{place} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from None
        csv.field_size_limit(_MOST_CELL)
        delimiter, names = self._header(text, place=place)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for number, row in enumerate(rows):
                where = f"{place} row {number}"
                if number == 0 or not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"{where} has {len(row)} cells, the header {len(names)}",
                        hint='a cell with a comma, a quote or a line end in it needs quotes: "a, b"',
                    )
                yield FileSample(where, self._record(dict(zip(names, row, strict=True)), where, folder))
        except csv.Error as error:
            raise DataError(
                f"{place} cannot be read as a table at line {rows.line_num}: {error}",
                hint="a quote that opens a cell must be closed",
            ) from None

    def _header(self, text: str, *, place: str) -> tuple[str, list[str]]:
        """The delimiter under which the first line names what the model reads, and those names."""
        first = text.partition("\n")[0].rstrip("\r")
        wanted = {self.text_field} if self.config.text is not None else set()
        found = {mark: next(csv.reader([first], delimiter=mark), []) for mark in ("\t", ",", ";", "|")}
        for mark, names in found.items():
            if wanted <= set(names) and len(names) == len(set(names)):
                return mark, names
        names = max(found.values(), key=len)
        raise DataError(
            f"{place} has no column {self.text_field!r}; it has: {', '.join(names)}",
            hint="name the column of the text with --text-field",
        )

    def _record(self, values: Mapping[str, Any], place: str, folder: Path) -> dict[str, Column]:
        sample: dict[str, Column] = {}
        if self.config.text is not None:
            if self.text_field not in values:
                raise DataError(f"{place} has no field {self.text_field!r}", hint=self._line_hint())
            text = values[self.text_field]
            sample[self.config.text.field] = _bytes(("" if text is None else str(text)).encode())
        for stem in (self.config.image, self.config.audio):
            if stem is not None:
                name = values.get(stem.field)
                if not isinstance(name, str | None):
                    raise DataError(f"{place}: {stem.field!r} is no path", hint=self._line_hint())
                sample[stem.field] = _bytes(_read(folder / name) if name else b"")
        return sample

    def _only_media(self) -> str | None:
        """The field of a model that reads nothing but pictures, or nothing but sounds."""
        stems = _stems(self.config)
        return stems[0].field if len(stems) == 1 and stems[0] is not self.config.text else None

    def _line_hint(self) -> str:
        """A line that the model can read."""
        stems = (self.config.image, self.config.audio)
        fields = {stem.field: "a path" for stem in stems if stem is not None}
        line = {self.text_field: "a text", **fields} if self.config.text is not None else fields
        return f"a .jsonl file has one object a line: {json.dumps(line)}"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _object(line: bytes, place: str, hint: str) -> dict[str, Any]:
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}", hint=hint) from None
    if not isinstance(values, dict):
        raise DataError(f"{place} is not a JSON object", hint=hint)
    return values


def _stems(config: ModelConfig) -> list[ImageConfig | AudioConfig | TextConfig]:
    return [stem for stem in (config.image, config.audio, config.text) if stem is not None]


def _read(path: Path) -> bytes:
    if not path.is_file():
        require_source(str(path))
        raise ConfigError(f"{path} is a folder", hint="name a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _bytes(data: bytes) -> RaggedTensor:
    values = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    )
    return RaggedTensor(values=values, offsets=torch.tensor([0, len(data)]))

"""metadata.jsonl and metadata.csv among pictures or sounds, as in Hugging Face's image and audio folders.

    {"file_name": "0001.png", "label": "cat", "text": "a cat on a mat"}

`file_name` is relative to the folder of the metadata file. The other values become fields: text as it is,
everything else as JSON.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import decode_text
from rsc.ingest.readers.file_tree import Tree, TreeEntry
from rsc.ingest.readers.tables.infer_fields import stored_names

NAMES = ("metadata.jsonl", "metadata.csv")
_TAKEN = ("image", "audio", "path")


@dataclass(frozen=True)
class Metadata:
    """Rows by the path of the file that they are about, under the names that they are stored by."""

    file: str
    names: tuple[str, ...]
    rows: dict[str, dict[str, str]]


def read_metadata(tree: Tree, *, options: ImportOptions) -> Metadata | None:
    """None where there is none. Raises DataError for a file that is not what its name promises: its labels
    would be lost."""
    files = [entry for entry in tree.entries() if PurePosixPath(entry.name).name in NAMES]
    if not files:
        return None
    found: dict[str, dict[str, Any]] = {}
    for entry in files:
        for place, row in _rows(entry, tree, options=options):
            name = row.pop("file_name", None)
            if not isinstance(name, str):
                raise _unusable(f"{place} has no file_name")
            path = str(PurePosixPath(entry.name).parent / name)
            if path in found:
                raise _unusable(f"{place} names a file for the second time")
            found[path] = row
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    if taken := [name for name in names if name in _TAKEN]:
        raise _unusable(f"{files[0].name} has a field {taken[0]!r}, which is the file's own")
    stored = stored_names(names, texts=[name for name in names if name == "text"], options=options)
    rows = {
        path: {stored[name]: _text(value) for name, value in row.items() if value is not None}
        for path, row in found.items()
    }
    return Metadata(PurePosixPath(files[0].name).name, tuple(stored.values()), rows)


def _rows(entry: TreeEntry, tree: Tree, *, options: ImportOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    text = decode_text(tree.read(entry), first_line=0, name=entry.name, options=options)
    if entry.suffix == ".csv":
        yield from _csv_rows(entry.name, text)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row: Any = None
        with suppress(ValueError):
            row = json.loads(line)
        if not isinstance(row, dict):
            raise _unusable(f"{entry.name} line {number} is not a JSON object")
        yield f"{entry.name} line {number}", row


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in table:
            if None in cells or None in cells.values():
                raise _unusable(
                    f"{name} line {table.line_num} has another number of cells than the first line"
                )
            yield f"{name} line {table.line_num}", dict(cells)
    except csv.Error as error:
        raise _unusable(f"{name} line {table.line_num}: {error}") from None


def _unusable(what: str) -> DataError:
    return DataError(
        f"{what}; what it says about the files would be lost",
        hint="each row needs a file_name and fields; or keep the file out of the source",
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

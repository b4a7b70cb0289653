"""The reader of a source that has no path: standard input, or objects in a store.

JSON lines, tables and plain text are read there. The other formats are decoded in workers, which have no
network and no way to such a source: they are refused with what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import BY_SUFFIX, refuse_pointer
from rsc.ingest.readers.elsewhere.bucket import SCHEMES, is_stored, stored_objects
from rsc.ingest.readers.elsewhere.held import HeldFile
from rsc.ingest.readers.elsewhere.pipe import STANDARD_INPUT, PipedInput
from rsc.ingest.readers.file_set import FileSet
from rsc.ingest.readers.json_list import begins_list
from rsc.ingest.readers.lines import bare_suffix, head
from rsc.ingest.readers.source import Source
from rsc.ingest.readers.tables.delimited import DelimitedTable
from rsc.ingest.readers.tables.jsonl import JsonLines
from rsc.ingest.readers.text import TextFile

_KINDS = ("jsonl", "csv", "text")
_HEAD_BYTES = 4096


def is_elsewhere(source: Path | str) -> bool:
    """Whether a source is no path. Raises ConfigError for an address that is not read."""
    text = str(source)
    if text == STANDARD_INPUT or is_stored(text):
        return True
    scheme, separator, _ = text.partition("://")
    if isinstance(source, str) and separator and scheme.isalnum():
        raise ConfigError(
            f"cannot read {scheme}:// sources",
            hint=f"read are paths, {', '.join(f'{each}://' for each in SCHEMES)} and standard input: "
            "curl ADDRESS | rsc data import - --name NAME",
        )
    return False


def open_elsewhere(source: str, *, options: ImportOptions, folder: Path) -> tuple[Source, dict[str, int]]:
    """The reader, and what it leaves out: sentence -> how many. A pipe is kept encrypted in `folder`.

    Raises DataError where there is nothing, or nothing of one format.
    """
    if source == STANDARD_INPUT:
        return _read_pipe(options=options, folder=folder), {}
    objects = stored_objects(source)
    kinds = [BY_SUFFIX.get(bare_suffix(item)) for item in objects]
    if kinds == [None] and options.format == "auto":
        kinds = [_kind_of_content(objects[0])]
    kind = options.format if options.format != "auto" else _kind_of_most(kinds, source=source)
    _require_forwards(kind, source=source)
    chosen = [item for item, own in zip(objects, kinds, strict=True) if len(objects) == 1 or own == kind]
    if not chosen:
        raise DataError(f"no object below {source} is {kind} by its name", hint="give one object")
    notes = {"objects that are not part of the source: left out": len(objects) - len(chosen)}
    return _reader(kind, chosen, options=options), {note: count for note, count in notes.items() if count}


def _read_pipe(*, options: ImportOptions, folder: Path) -> Source:
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError(
            "standard input is a terminal",
            hint="pipe a file in: zstdcat FILE | rsc data import - --name NAME",
        )
    if options.format != "auto":
        _require_forwards(options.format, source="standard input")
    piped = PipedInput(sys.stdin.buffer, folder=folder)
    kind = options.format if options.format != "auto" else _kind_of_content(piped)
    return _reader(kind, [piped], options=options)


def _kind_of_content(file: HeldFile) -> str:
    """Raises ConfigError where the first bytes could be several formats."""
    start = head(file, size_bytes=_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"{") or begins_list(start):
        return "jsonl"
    raise ConfigError(
        f"the format of {file.name} is not known from its name, and it does not begin as JSON lines do",
        hint="say which: --format csv, or --format text",
    )


def _kind_of_most(kinds: Sequence[str | None], *, source: str) -> str:
    """Raises DataError where objects have several formats: what is left out would be data."""
    found = sorted({kind for kind in kinds if kind is not None and (kind != "text" or len(kinds) == 1)})
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"the format of {source} is not known from names",
            hint="say which with --format, or give one object",
        )
    raise DataError(
        f"{source} holds {' and '.join(found)} objects", hint="say which with --format, or import them apart"
    )


def _require_forwards(kind: str, *, source: str) -> None:
    if kind not in _KINDS:
        raise ConfigError(
            f"{kind} is not read from {source}; {', '.join(_KINDS)} are, packed too",
            hint="copy it to an encrypted disk first, and import the file",
        )


def _reader(kind: str, files: Sequence[HeldFile], *, options: ImportOptions) -> Source:
    """With everything found out that a worker needs, since it cannot look."""
    for file in files:
        refuse_pointer(file)
    if kind == "text":
        if len(files) > 1:
            raise ConfigError(
                f"{len(files)} objects of text are not read as one source", hint="give one object"
            )
        return TextFile(files[0], options=options)
    if kind == "jsonl":
        first = JsonLines(files[0], options=options)
        lines = [first, *(JsonLines(file, options=options, like=first) for file in files[1:])]
        for reader in lines:
            reader.look()
        return lines[0] if len(lines) == 1 else FileSet(lines)
    table = DelimitedTable(files[0], options=options)
    tables = [table, *(DelimitedTable(file, options=options, like=table) for file in files[1:])]
    for each in tables:
        each.look()
    return tables[0] if len(tables) == 1 else FileSet(tables)

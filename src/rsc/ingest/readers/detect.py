"""Which reader a source needs, from its name and its first bytes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.containment import require_contained
from rsc.ingest.readers.file_set import FileSet
from rsc.ingest.readers.file_tree import Tree
from rsc.ingest.readers.json_list import begins_list
from rsc.ingest.readers.lines import bare_suffix, head
from rsc.ingest.readers.mds import INDEX, MdsFolder, is_litdata_index, is_mds_index
from rsc.ingest.readers.media.codec import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from rsc.ingest.readers.media.files import MediaTree
from rsc.ingest.readers.python_docs import PythonDocs
from rsc.ingest.readers.source import Source, SourceFile, require_readable
from rsc.ingest.readers.tables.arrow import (
    ARROW_SUFFIXES,
    HF_DICT,
    HF_STATE,
    PARQUET_SUFFIXES,
    open_arrow,
    open_hf,
    open_parquet,
)
from rsc.ingest.readers.tables.delimited import DelimitedTable
from rsc.ingest.readers.tables.jsonl import JsonLines
from rsc.ingest.readers.tar_members import is_tar
from rsc.ingest.readers.text import TextFile, TextTree
from rsc.ingest.readers.webdataset import TarShards

PYTHON_DOCS = "python-docs"
_JSON = ".json"  # lines or one list; beside other files it describes them more often than it is the data

BY_SUFFIX = {
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"), **dict.fromkeys(ARROW_SUFFIXES, "arrow"),
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".txt": "text", ".text": "text", ".md": "text", ".rst": "text", ".log": "text",
}  # fmt: skip


_NOT_READ = {
    b"%PDF-": ("a PDF", "write its text to a file first, for example: pdftotext FILE.pdf FILE.txt"),
    b"PK\3\4": ("an office document or a zip archive", "save a spreadsheet as CSV; name an archive .zip"),
    b"\x1f\x8b": ("packed by gzip", "give it a name that ends in .gz"),
    b"SQLite format 3\0": ("an SQLite database", "write a table to CSV first: sqlite3 -header -csv FILE"),
}
"""First bytes of files that people try, what they are, and what to do."""


_OfSet = TypeVar("_OfSet", JsonLines, DelimitedTable)

_POINTER, _POINTER_BYTES = (
    b"version https://git-lfs.github.com/spec/",
    1024,
)  # its specification: below 1024 bytes


def open_source(source: Path | str, *, options: ImportOptions) -> Source:
    """The reader of a source. The word `python-docs` is a source of its own.

    Raises DataError for what is missing, empty or not recognised, and for a folder with links out of it.
    """
    if str(source) == PYTHON_DOCS or options.format == PYTHON_DOCS:
        if str(source) == PYTHON_DOCS:
            return PythonDocs()
        require_contained(Path(source))
        return PythonDocs(root=Path(source))
    path = Path(source)
    require_readable(path)
    if path.is_dir():
        require_contained(path)
    refuse_pointer(path)  # before its name decides how it is opened
    kind = options.format if options.format != "auto" else detect(path)
    reader = _reader(kind, path, options=options)
    for file in reader.files() if not isinstance(reader, MediaTree) else ():  # there it is a bad record
        refuse_pointer(file)
    return reader


def refuse_pointer(path: SourceFile) -> None:
    """Raises DataError for what Git LFS leaves in the place of a file that was not fetched."""
    if isinstance(path, Path) and not (path.is_file() and path.stat().st_size <= _POINTER_BYTES):
        return
    with path.open("rb") as file:
        start = file.read(_POINTER_BYTES + 1)
    if len(start) <= _POINTER_BYTES and start.startswith(_POINTER):
        raise DataError(
            f"{path.name} is a Git LFS pointer, not the data", hint="fetch it in its repository: git lfs pull"
        )


def left_out(source: Path | str, *, reader: Source) -> dict[str, int]:
    """What lies in a folder and will not be read: sentence -> how many."""
    path = Path(source)
    if not path.is_dir() or reader.kind == PYTHON_DOCS:
        return {}
    tree = Tree(path)
    others = set(tree.files()).difference(reader.files())
    notes = {
        "files of the folder that are not part of the source: left out": len(others),
        "links to folders or to nothing: not followed": tree.num_links,
    }
    return {note: count for note, count in notes.items() if count}


def detect(path: Path) -> str:
    """The format of a file or folder that exists. Raises DataError when nothing fits."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return _detect_tree(path)
    if is_tar(path):
        return "webdataset"
    return BY_SUFFIX.get(bare_suffix(path)) or _detect_content(path)


def _reader(kind: str, path: Path, *, options: ImportOptions) -> Source:
    is_tree = path.is_dir() or path.suffix.lower() == ".zip"
    if kind == "parquet":
        return open_parquet(path, options=options)
    if kind == "arrow":
        return open_arrow(path, options=options)
    if kind == "webdataset":
        return TarShards(path, options=options)
    if kind in ("mds", "hf"):
        _require_folder(path, kind=kind)
        return MdsFolder(path, options=options) if kind == "mds" else open_hf(path, options=options)
    if kind in ("images", "audio") and is_tree:
        return MediaTree(path, options=options, medium="image" if kind == "images" else "audio")
    if kind == "text" and (is_tree or options.records == "files"):
        return TextTree(path, options=options)
    if path.is_dir() and kind in ("jsonl", "csv"):
        return _file_set(kind, path, options=options)
    if is_tree:
        raise ConfigError(
            f"{path} is a folder or archive; {kind} is read from single files",
            hint="give one file, or unpack the archive and give the folder",
        )
    if kind in ("images", "audio"):
        raise ConfigError(
            f"{path} is a single file; {kind} are read from a folder or a .zip",
            hint=f"give the folder: {path.absolute().parent}",
        )
    if kind == "text":
        return TextFile(path, options=options)
    if kind == "csv":
        return DelimitedTable(path, options=options)
    return JsonLines(path, options=options)


def _file_set(kind: str, folder: Path, *, options: ImportOptions) -> Source:
    """Every file of the kind directly in a folder. Raises DataError when there is none."""
    files = [p for p in folder.iterdir() if p.is_file()]
    paths = sorted(p for p in files if BY_SUFFIX.get(bare_suffix(p)) == kind)
    if not paths and kind == "jsonl":
        paths = sorted(p for p in files if bare_suffix(p) == _JSON)
    if not paths:
        raise DataError(f"{folder} holds no {kind} files", hint="folders inside it are not looked into")
    if kind == "jsonl":
        return FileSet(_alike([JsonLines(path, options=options) for path in paths]))
    return FileSet(_alike([DelimitedTable(path, options=options) for path in paths]))


def _alike(readers: Sequence[_OfSet]) -> list[_OfSet]:
    """All with the fields of the first one whose beginning passes no limit. Raises LimitPassed where there is
    none."""
    first = readers[0]
    for reader in readers:
        with contextlib.suppress(LimitPassed, MemoryError):
            reader.fields()
            first = reader
            break
    return [reader if reader is first else replace(reader, like=first) for reader in readers]


def _require_folder(path: Path, *, kind: str) -> None:
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; {kind} is a folder", hint=f"give {path.absolute().parent}")


def _detect_tree(path: Path) -> str:
    if (path / HF_STATE).exists() or (path / HF_DICT).exists():
        return "hf"
    if any(is_mds_index(index) for index in path.glob(f"**/{INDEX}")):
        return "mds"
    if is_litdata_index(path / INDEX):
        raise DataError(
            f"{path} is a LitData set, which is not read",
            hint="write it as MDS, WebDataset or Parquet with LitData's own reader",
        )
    suffixes = Counter(entry.suffix for entry in Tree(path).entries())
    if not suffixes:
        raise DataError(f"{path} holds no files", hint="hidden files are not looked at")
    if suffixes.keys() <= {".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"} and path.suffix.lower() == ".zip":
        raise DataError(
            f"{path.name} holds only archives, which are not opened inside one", hint="unpack it first"
        )
    if any(suffix in PARQUET_SUFFIXES for suffix in suffixes) and path.is_dir():
        return "parquet"
    if any(suffix in ARROW_SUFFIXES for suffix in suffixes) and path.is_dir():
        return "arrow"
    if path.is_dir() and any(is_tar(entry) for entry in path.iterdir()):
        return "webdataset"
    if (medium := _medium(suffixes)) is not None:
        return medium
    kinds = {BY_SUFFIX.get(bare_suffix(Path(entry.name))) for entry in Tree(path).entries()}
    if path.is_dir() and {bare_suffix(Path(entry.name)) for entry in Tree(path).entries()} == {_JSON}:
        return "jsonl"
    return next((kind for kind in ("jsonl", "csv") if path.is_dir() and kind in kinds), "text")


def _medium(suffixes: Counter[str]) -> str | None:
    """Pictures or sounds, whichever are more; the others are left out and named."""
    images = sum(suffixes[suffix] for suffix in IMAGE_SUFFIXES)
    sounds = sum(suffixes[suffix] for suffix in AUDIO_SUFFIXES)
    if not images and not sounds:
        return None
    return "images" if images >= sounds else "audio"


def _detect_content(path: Path) -> str:
    """Files without a telling name: JSON lines or plain text."""
    start = head(path, size_bytes=4096).lstrip()
    for mark, (what, hint) in _NOT_READ.items():
        if start.startswith(mark):
            raise DataError(f"{path.name} is {what}, which is not read", hint=hint)
    if start.startswith(b"{") or begins_list(start):
        return "jsonl"
    if b"\0" in start:
        raise DataError(f"{path.name}: not a format that can be told from its name or first bytes",
                        hint="say which with --format")  # fmt: skip
    return "text"

"""What every reader gives the importer: parts of a source, and columns of records read from one part.

A source is cut into parts before anything is parsed. The cut depends on the source and on
`part_bytes` alone, never on the number of processes or on what was done before a kill, so that the
same source gives the same shards however it was imported.

    Source.parts()      cheap, in order, in the parent process
    Source.read(part)   in any process; yields chunks of about a mebibyte
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np

from rsc.errors import DataError, RscError
from rsc.ingest.parse_limits import LimitPassed
from rsc.ingest.readers.elsewhere.held import HeldFile
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field


class NarrowTypes(RscError):
    """A value does not fit the types of the first records: the import begins again with those of all records
    (`Source.surveyed`)."""


Values = Sequence[Any] | np.ndarray | Ragged
"""One column of a chunk: str, bytes, int, float or arrays, one entry a record."""

CHUNK_BYTES = 1 << 20  # a parse step: large enough to amortise calls, small enough to stay in L2


@dataclass(frozen=True)
class Part:
    """A span of a source that one process reads on its own.

    `span` is the reader's own business (offsets, names). `payload` are the bytes, where the parent had
    to read them to find the cut; they travel to another process only if that one could not read them
    again (compressed files). `first_record` is the number of the part's first record in the whole
    source, bad ones included.
    """

    number: int
    first_record: int
    size_bytes: int
    span: Any
    payload: bytes | None = None
    is_forward_only: bool = False
    num_records: int = 0
    """Records in it, bad ones included; told by readers whose files can be several (file_set.py)."""
    refusal: str = ""
    """Why the part is not read: it is set aside by name, and the others go on."""

    def to_send(self) -> Part:
        """The part as it goes to another process."""
        return self if self.is_forward_only or self.payload is None else replace(self, payload=None)


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be taken. `reason` never quotes the record; `raw` is stored encrypted."""

    record: int
    place: str
    reason: str
    raw: bytes = b""


@dataclass
class Chunk:
    """Records in source order as columns, their numbers, and what could not be read among them.

    `split` is set when the source itself says where its records belong (`train/`, `test/`).
    `notes` counts, by sentence, what was changed or left out without losing a record.
    """

    columns: dict[str, Values]
    numbers: np.ndarray
    size_bytes: int
    bad: list[BadRecord] = field(default_factory=list)
    split: str | None = None
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def num_records(self) -> int:
        return len(self.numbers)


def until_limit(find: Callable[[], Iterator[Part]], *, span: Any) -> Iterator[Part]:
    """The parts of one file of several. Where finding the next one passes a limit, the last one is refused,
    and says why: what was read of the file before stays, and the other files go on.

    `span` is the refused part's.
    """
    last: Part | None = None
    try:
        for part in find():
            last = part
            yield part
    except (LimitPassed, MemoryError) as error:
        told = error.message if isinstance(error, LimitPassed) else "reading it takes more memory than it may"
        number, first_record = (
            (0, 0) if last is None else (last.number + 1, last.first_record + last.num_records)
        )
        yield Part(number, first_record, 0, span, num_records=1, refusal=told)


class SourceFile(Protocol):
    """A file to read: a path, or what lies elsewhere (elsewhere/held.py)."""

    @property
    def name(self) -> str: ...

    @property
    def stem(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def suffixes(self) -> list[str]: ...

    def open(self, mode: Literal["rb"], /) -> BinaryIO: ...


class Source(Protocol):
    """A reader of one source. Most have neither media nor splits of their own."""

    @property
    def kind(self) -> str:
        """Name of the format, as in `--format`."""
        ...

    def fields(self) -> tuple[Field, ...]:
        """The fields of a record, found by looking at the start of the source."""
        ...

    def media(self) -> dict[str, str]:
        """Byte fields that hold a file of their own: field -> `image` or `audio`."""
        return {}

    def splits(self) -> tuple[str, ...]:
        """The splits that the source itself has."""
        return ()

    def numeric_texts(self) -> tuple[str, ...]:
        """String fields that hold lists of numbers as JSON and nothing else, which are not scanned."""
        return ()

    def names(self) -> dict[str, str]:
        """Stored name -> name in the source, of fields that are called otherwise there."""
        return {}

    def surveyed(self) -> Source:
        """This source with types that hold for every record, found by reading all of it once."""
        return self

    @property
    def is_once(self) -> bool:
        """Whether its records can be read once only."""
        return False

    def taken(self) -> list[tuple[str, str]]:
        """What in the source was taken for what: (`folder val/`, `split validation`)."""
        return []

    def files(self) -> Sequence[SourceFile]:
        """Every file that will be read; one that changes meanwhile stops the import."""
        ...

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """Parts of about `part_bytes`, in order. Raises DataError for what is not what it claims to be."""
        ...

    def name_of(self, part: Part) -> str:
        """What a part is of, for people: a file, or the first of several."""
        return f"part {part.number}"

    def read(self, part: Part) -> Iterator[Chunk]:
        """The records of one part, good and bad, each once. Raises DataError as `parts` does."""
        ...


@dataclass(frozen=True)
class Fingerprint:
    """Size, time of change and inode of every file of a source: equal before and after, or no import."""

    digest: str
    num_files: int
    size_bytes: int

    @classmethod
    def of(cls, files: Sequence[SourceFile]) -> Fingerprint:
        """Raises DataError for a file that is missing, unreadable or not a regular file."""
        digest = hashlib.sha256()
        total = 0
        for path in files:
            size_bytes, stamp = path.stamp() if isinstance(path, HeldFile) else _stamp(Path(str(path)))
            total += size_bytes
            digest.update(f"{path}\0{stamp}\n".encode(errors="surrogateescape"))
        return cls(digest=digest.hexdigest(), num_files=len(files), size_bytes=total)

    def check(self, files: Sequence[SourceFile]) -> None:
        """Raises DataError when any file differs from when this was taken."""
        if Fingerprint.of(files) != self:
            name = files[0].name if len(files) == 1 else f"one of the {len(files)} source files"
            raise DataError(
                f"{name} changed while it was being imported; nothing was committed",
                hint="import again when nothing writes to it, or import a copy",
            )


def own_name(name: str) -> str:
    """The name of a file beside its index.

    Raises DataError for one that would lead elsewhere, and for a hidden one, which may be a link to anywhere
    (containment.py).
    """
    if Path(name).name != name or name.startswith("."):
        raise DataError(
            f"the index names a file {name!r}, which is not in its folder or is hidden",
            hint="an index may only name files beside it: make it anew",
        )
    return name


def require_readable(path: Path) -> os.stat_result:
    """Stat of a source path. Raises DataError in words for what people type wrong."""
    facts = _stat(path)
    if path.is_file() and facts.st_size == 0:
        raise DataError(f"{path} is empty", hint="an import needs at least one record")
    return facts


def _stamp(path: Path) -> tuple[int, tuple[int, ...]]:
    facts = _stat(path)
    return facts.st_size, (
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
        facts.st_ino,
        facts.st_dev,
    )


def _stat(path: Path) -> os.stat_result:
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", hint=_nearby(path)) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not os.access(path, os.R_OK):
        raise DataError(
            f"cannot read {path}: permission denied", hint=f"let yourself read it: chmod u+r {path}"
        )
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is neither a file nor a folder", hint="pipes and devices cannot be resumed")
    return facts


def _nearby(path: Path) -> str:
    """The closest name in the same folder, or the folder that was looked in."""
    folder = path.parent if str(path.parent) else Path()
    if not folder.is_dir():
        return f"the folder {folder.absolute()} does not exist either"
    close = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"did you mean {folder / close[0]}?" if close else f"looked in {folder.absolute()}"

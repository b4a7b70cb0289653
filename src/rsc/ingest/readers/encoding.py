"""Bytes to text, with the line of the first byte that does not fit."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord

_NO_TEXT = {
    b"PAR1": "Parquet",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\xd0\xcf\x11\xe0": "an old Office document",
}
"""How files begin that are often given another ending."""
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BYTE_ORDER_MARK = "\ufeff"  # written by spreadsheets in front of UTF-8; not part of the data


@dataclass(frozen=True)
class Lines:
    """Texts of the lines with their numbers from 0; lines in another encoding when those are quarantined."""

    texts: Sequence[str]
    numbers: Sequence[int]
    bad: Sequence[BadRecord]
    last_byte: bytes = b"\n"

    @property
    def num_lines(self) -> int:
        return len(self.texts) + len(self.bad)


def decode_lines(block: bytes, *, first_line: int, name: str, options: ImportOptions) -> Lines:
    """Split a block of whole lines and decode it. Raises DataError as `decode_text` does."""
    try:
        texts = block.decode(options.encoding).split("\n")
    except UnicodeDecodeError:
        return _decode_each(block, first_line=first_line, name=name, options=options)
    if not texts[-1]:
        texts.pop()
    if first_line == 0 and texts:
        texts[0] = texts[0].removeprefix(BYTE_ORDER_MARK)
    return Lines(texts, numbers=range(first_line, first_line + len(texts)), bad=(), last_byte=block[-1:])


def decode_text(data: bytes, *, first_line: int, name: str, options: ImportOptions) -> str:
    """Raises DataError with the line number when the bytes are not in the declared encoding."""
    try:
        text = data.decode(options.encoding)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start) + 1
        raise not_encoded(f"{name} line {line}", data=data, options=options) from None
    return text.removeprefix(BYTE_ORDER_MARK) if first_line == 0 else text


def not_encoded(place: str, *, data: bytes, options: ImportOptions) -> DataError:
    """`data` is what was to be decoded; its first bytes may tell what it is."""
    if data.startswith(_UTF_16_MARKS):
        return DataError(
            f"{place} is not {options.encoding.upper()}: the file is UTF-16",
            hint="convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )
    kind = next((kind for start, kind in _NO_TEXT.items() if data.startswith(start)), None)
    if kind is not None or data.count(b"\0") > len(data) // 1000:
        what = f"begins as {kind} does" if kind is not None else "holds bytes that no text has"
        return DataError(
            f"{place} is not {options.encoding.upper()}: the file {what}",
            hint="give it the ending of its format, or --format; or export it as text",
        )
    return DataError(
        f"{place} is not {options.encoding.upper()}",
        hint="give the file's encoding, for example --encoding latin-1 or --encoding cp1252, "
        "or set such records aside with bad_encoding=quarantine",
    )


def _decode_each(block: bytes, *, first_line: int, name: str, options: ImportOptions) -> Lines:
    texts: list[str] = []
    numbers: list[int] = []
    bad: list[BadRecord] = []
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start=first_line):
        try:
            text = line.decode(options.encoding)
            texts.append(text.removeprefix(BYTE_ORDER_MARK) if number == 0 else text)
            numbers.append(number)
        except UnicodeDecodeError:
            place = f"line {number + 1}"
            if options.bad_encoding == "stop":
                raise not_encoded(f"{name} {place}", data=block, options=options) from None
            bad.append(BadRecord(number, place, f"not {options.encoding.upper()}", raw=line))
    return Lines(texts, numbers=numbers, bad=bad, last_byte=block[-1:])


def readable_name(name: str, *, notes: Counter[str] | None = None) -> str:
    r"""A name of a file as text. Bytes that are not UTF-8 are written `\xe9`, so that two names stay two."""
    try:
        name.encode()
    except UnicodeEncodeError:
        if notes is not None:
            notes["names that are not UTF-8: such bytes are written \\x.."] += 1
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return name

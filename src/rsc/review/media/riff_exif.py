"""What the cleaners of pictures and recordings share: what was removed, RIFF chunks, EXIF's orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

_ORIENTATION, _GPS = 0x0112, 0x8825  # tags of the TIFF 6.0 directory and of EXIF 2.32 table 3


class Removed(NamedTuple):
    """What was taken out: exif, gps, xmp, thumbnail, comment, iptc, tags, picture, trailing, ..."""

    kind: str
    size_bytes: int


def exif_kinds(tiff: bytes) -> list[str]:
    """What an EXIF block holds, as words for the report: always exif, perhaps gps and thumbnail."""
    kinds = ["exif"]
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        first = struct.unpack_from(order + "I", tiff, 4)[0]
        entries, following = _directory(tiff, order=order, offset=first)
    except (KeyError, struct.error):
        return kinds
    if _GPS in entries:
        kinds.append("gps")
    if following:
        kinds.append("thumbnail")  # the second directory of EXIF is the thumbnail's
    return kinds


def orientation_of(tiff: bytes) -> int:
    """The EXIF orientation 1 to 8; 1 where there is none or it cannot be read."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        entries, _ = _directory(tiff, order=order, offset=struct.unpack_from(order + "I", tiff, 4)[0])
        value = struct.unpack_from(order + "H", entries[_ORIENTATION])[0]
    except (KeyError, struct.error):
        return 1
    return int(value) if 1 <= value <= 8 else 1


def orientation_block(orientation: int) -> bytes:
    """A TIFF block that says the orientation and nothing else (little endian, one directory, one entry)."""
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIHHI", 1, _ORIENTATION, 3, 1, orientation, 0, 0)


def _directory(tiff: bytes, *, order: str, offset: int) -> tuple[dict[int, bytes], int]:
    """Tag -> the four value bytes, and the offset of the next directory."""
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    entries = {}
    for index in range(count):
        tag, _, _ = struct.unpack_from(order + "HHI", tiff, offset + 2 + 12 * index)
        entries[tag] = tiff[offset + 10 + 12 * index : offset + 14 + 12 * index]
    return entries, struct.unpack_from(order + "I", tiff, offset + 2 + 12 * count)[0]


def riff_chunks(data: bytes, *, order: Literal["little", "big"] = "little") -> Iterator[tuple[bytes, bytes]]:
    """(name, payload) of the chunks of RIFF, or of AIFF (big), padding removed.

    Raises ValueError where a chunk or the whole is shorter than its header says.
    """
    offset, end = 12, 8 + int.from_bytes(data[4:8], order)
    while offset + 8 <= min(end, len(data)):
        name, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], order)
        if offset + 8 + size > len(data):
            raise ValueError(f"chunk {name!r} says {size} bytes, {len(data) - offset - 8} are left")
        yield name, data[offset + 8 : offset + 8 + size]
        offset += 8 + size + size % 2
    if min(end, offset) > len(data) + 1 or end > max(
        len(data) + 1, offset
    ):  # some leave out the last padding
        raise ValueError(f"its header says {end} bytes, {len(data)} are there")


def riff_file(
    form: bytes, chunks: list[tuple[bytes, bytes]], *, order: Literal["little", "big"] = "little"
) -> bytes:
    """Inverse of `riff_chunks`; `form` is WAVE, WEBP, AIFF or AIFC."""
    body = b"".join(
        name + len(payload).to_bytes(4, order) + payload + b"\x00" * (len(payload) % 2)
        for name, payload in chunks
    )
    mark = b"RIFF" if order == "little" else b"FORM"
    return mark + (4 + len(body)).to_bytes(4, order) + form + body

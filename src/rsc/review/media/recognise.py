"""What a file is, by its first bytes: its name may say anything."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

from rsc.review.media.mpeg import begins_with_frames

Medium = Literal["image", "audio", "video"]

_DIB_HEADERS = frozenset(
    {12, 40, 52, 56, 64, 108, 124}
)  # BMP: sizes of the header that Windows and OS/2 wrote
_BRANDS = {
    b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic", b"avif": "avif", b"avis": "avif",
    b"M4A ": "m4a", b"M4B ": "m4a",
}  # fmt: skip

_MEDIA: dict[str, Medium] = {
    **dict.fromkeys(
        ("jpeg", "png", "webp", "gif", "bmp", "tiff", "ppm", "heic", "avif", "jpeg 2000", "jpeg xl", "psd"),
        "image",
    ),
    **dict.fromkeys(("wav", "flac", "ogg", "mp3", "aiff", "m4a", "wav 64", "au", "caf"), "audio"),
    **dict.fromkeys(("mp4", "matroska", "avi"), "video"),
}

_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # but tab, line and page ends, and escape
_PRINTABLE = bytes((9, 10, 12, 13, *range(32, 127)))
_SHORTEST_LATIN = 16  # below, random bytes look like it too often
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def format_of(data: bytes) -> str | None:
    """`jpeg`, `wav`, ...; None for what is no picture, sound or film that is known here."""
    return next((name for name, recognises in _MARKS if recognises(data)), None)


def medium_of(data: bytes) -> Medium | None:
    return _MEDIA.get(format_of(data) or "")


def is_text(data: bytes) -> bool:
    """UTF-8 without control characters; `data` may end inside a character. Nothing is no text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return bool(text) and _CONTROLS.search(text) is None


class Text(NamedTuple):
    text: str
    encoding: str


def text_of(data: bytes) -> Text | None:
    """Bytes that are text, by what they look like; None for all others, and for nothing.

    UTF-8 without control characters; UTF-16 with its mark; else bytes that are nearly all printable ASCII,
    as a page in Latin-1 is. Not covered: UTF-16 without a mark, encodings of few ASCII letters.
    """
    if is_text(data):
        with suppress(UnicodeDecodeError):
            return Text(data.decode(), "utf-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and len(data) % 2 == 0:
        with suppress(UnicodeDecodeError):
            return Text(data.decode("utf-16"), "utf-16")
    if len(data) >= _SHORTEST_LATIN and 10 * len(data.translate(None, _PRINTABLE)) <= len(data):
        text = data.decode("latin-1")
        return None if _CONTROLS.search(text) else Text(text, "latin-1")
    return None


def is_lfs_pointer(data: bytes) -> bool:
    """A file of Git LFS that was never fetched: three lines about where its bytes are."""
    return data.startswith(_LFS_POINTER)


def _riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda data: data[:4] == b"RIFF" and data[8:12] == form


def _starts(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(marks)


def _is_bmp(data: bytes) -> bool:
    return data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _DIB_HEADERS


def _is_brand(name: str) -> Callable[[bytes], bool]:
    """ISO 14496-12: a box `ftyp` first, whose brand says who may read the file."""
    return lambda data: data[4:8] == b"ftyp" and _BRANDS.get(data[8:12], "mp4") == name


_MARKS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("jpeg", _starts(b"\xff\xd8\xff")),
    ("png", _starts(b"\x89PNG\r\n\x1a\n")),
    ("webp", _riff(b"WEBP")),
    ("gif", _starts(b"GIF87a", b"GIF89a")),
    ("tiff", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("bmp", _is_bmp),
    (
        "ppm",
        lambda data: (
            data[:1] == b"P" and data[1:2] in b"123456" and data[2:3] in b" \t\r\n" and len(data) > 2
        ),
    ),
    ("wav", _riff(b"WAVE")),
    ("flac", _starts(b"fLaC")),
    ("ogg", _starts(b"OggS")),
    ("aiff", lambda data: data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC")),
    ("mp3", begins_with_frames),
    ("wav 64", _starts(b"RF64", b"BW64")),
    ("au", _starts(b".snd\0\0\0")),
    ("caf", _starts(b"caff\0\x01")),
    ("heic", _is_brand("heic")),
    ("avif", _is_brand("avif")),
    ("m4a", _is_brand("m4a")),
    ("mp4", _is_brand("mp4")),
    ("matroska", _starts(b"\x1aE\xdf\xa3")),
    ("avi", _riff(b"AVI ")),
    ("jpeg 2000", _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("jpeg xl", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ("psd", _starts(b"8BPS\0\x01")),
)

"""Strip what pictures and recordings carry beside their pixels and samples: bytes in, clean bytes out.

The pixels and samples are copied, never re-encoded. Kept are only the parts that a decoder needs; what is
not on a format's list is removed, so that an unknown chunk cannot carry anything through. The one thing
carried over is a JPEG's, PNG's or WebP's orientation, as a fresh EXIF block that holds nothing else.

    JPEG  APP1 (EXIF, XMP), APP2 except ICC colour, APP3-15 except Adobe's colour note, comments,
          everything behind the end mark (thumbnails and motion pictures hide there)
    PNG   tEXt zTXt iTXt eXIf tIME and every chunk that is not needed to draw
    WebP  EXIF, XMP and unknown chunks
    GIF   comments, texts and every application extension but the number of loops
    WAV   LIST/INFO, bext, iXML, id3 and every chunk but fmt, fact, data
    AIFF  names, authors, annotations, markers and every chunk but FVER, COMM, SSND
    FLAC  comments, pictures, applications, cue sheets; STREAMINFO and SEEKTABLE stay
    MP3   ID3v2 before, ID3v1, Lyrics3 and APEv2 behind
    Ogg   Vorbis and Opus comment headers emptied, pages re-framed

Not covered: what pixels show and samples say (faces, plates, screens, voices): policies need a written
`safeguard` for such data. Marks hidden in the pixels, sensor noise that identifies a camera, formats that
are not listed (an error, never a pass). Colour profiles are kept and may name a device model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rsc.errors import DataError
from rsc.review.media.audio import clean_aiff, clean_flac, clean_mp3, clean_ogg, clean_wav
from rsc.review.media.image import clean_gif, clean_jpeg, clean_png, clean_webp
from rsc.review.media.recognise import format_of
from rsc.review.media.riff_exif import Removed


@dataclass(frozen=True, slots=True)
class CleanMedia:
    """`removed` names the kinds of metadata taken out, with their size in bytes; never their content."""

    data: bytes
    format: str
    removed: tuple[Removed, ...]


def clean_media(data: bytes) -> CleanMedia:
    """Recognise the format by its first bytes and strip its metadata.

    Raises DataError when the format is not one of those above, or the file is cut short or malformed: what
    cannot be parsed cannot be cleaned.
    """
    name = format_of(data)
    if name is None or name not in _CLEANERS:
        known = " ".join(_CLEANERS)
        what = "the format of this picture or recording is not known" if name is None else f"a {name} file"
        raise DataError(
            f"{what}: its metadata cannot be taken out" if name else what,
            hint=f"convert it to one of: {known}; or decode on import with image_size or sample_rate",
        )
    try:
        kept, removed = _CLEANERS[name](data)
    except (IndexError, ValueError) as error:
        raise DataError(
            f"this {name} file is malformed or cut short: {error}", hint="leave it out, or repair it"
        ) from None
    return CleanMedia(kept, name, tuple(removed))


_CLEANERS: dict[str, Callable[[bytes], tuple[bytes, list[Removed]]]] = {
    "jpeg": clean_jpeg,
    "png": clean_png,
    "webp": clean_webp,
    "gif": clean_gif,
    "wav": clean_wav,
    "aiff": clean_aiff,
    "flac": clean_flac,
    "ogg": clean_ogg,
    "mp3": clean_mp3,
}
CLEANED = frozenset(_CLEANERS)
"""Formats that can be stored as given; every one is parsed to its end."""

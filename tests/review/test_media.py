"""Metadata goes, pixels and samples stay bit for bit."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from rsc.errors import DataError
from rsc.review.media.clean import clean_media

PLANTED = b"Jane Planted 0151"


def picture() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 255, (24, 16, 3), dtype=np.uint8))


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x010F] = PLANTED.decode()
    block[0x0112] = orientation
    block.get_ifd(0x8825)[2] = (48.0, 51.0, 24.0)
    return block.tobytes()


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    picture().save(file, "JPEG", exif=exif(), xmp=b"<x:xmpmeta>" + PLANTED, comment=PLANTED, **options)
    return file.getvalue() + PLANTED


def png() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", PLANTED.decode())
    info.add_itxt("XML:com.adobe.xmp", PLANTED.decode())
    file = io.BytesIO()
    picture().save(file, "PNG", pnginfo=info, exif=exif())
    return file.getvalue() + PLANTED


def webp() -> bytes:
    file = io.BytesIO()
    picture().save(file, "WEBP", exif=exif(), xmp=PLANTED, lossless=True)
    return file.getvalue()


PICTURES = {
    "jpeg": jpeg(),
    "progressive": jpeg(progressive=True, icc_profile=b"colour" * 9),
    "restarts": jpeg(restart_marker_blocks=1),
    "png": png(),
    "webp": webp(),
}


def pixels(data: bytes) -> tuple[bytes, bytes]:
    image = Image.open(io.BytesIO(data))
    return image.convert("RGB").tobytes(), ImageOps.exif_transpose(image).convert("RGB").tobytes()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_lose_what_was_planted_and_keep_pixels_and_orientation(name):
    clean = clean_media(PICTURES[name])
    assert PLANTED not in clean.data
    assert pixels(clean.data) == pixels(PICTURES[name])
    assert {"exif", "gps", "xmp"} <= {removed.kind for removed in clean.removed}
    left = Image.open(io.BytesIO(clean.data)).getexif()
    assert dict(left) == {0x0112: 6}
    assert not left.get_ifd(0x8825)
    again = clean_media(clean.data)
    assert again.data == clean.data  # the orientation block is read and written anew


def test_colour_profile_stays():
    clean = clean_media(PICTURES["progressive"]).data
    assert Image.open(io.BytesIO(clean)).info["icc_profile"] == b"colour" * 9


def test_embedded_thumbnail_is_reported_and_gone():
    thumbnail = b"\xff\xd8" + PLANTED
    ifd0 = struct.pack("<HHHIII", 1, 0x0131, 4, 1, 7, 26)
    ifd1 = struct.pack("<HHHII", 2, 0x0201, 4, 1, 60) + struct.pack("<HHIII", 0x0202, 4, 1, len(thumbnail), 0)
    tiff = b"II*\x00\x08\x00\x00\x00" + ifd0 + ifd1 + thumbnail
    app1 = b"Exif\x00\x00" + tiff
    plain = io.BytesIO()
    picture().save(plain, "JPEG")
    data = plain.getvalue()
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + data[2:]
    clean = clean_media(data)
    assert "thumbnail" in [removed.kind for removed in clean.removed]
    assert PLANTED not in clean.data


def sound() -> np.ndarray:
    return (np.sin(np.arange(8000) / 9) * 9000).astype(np.int16)


def recording(container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, format=container, subtype=subtype) as target:
        target.artist = PLANTED.decode()
        target.title = PLANTED.decode() * 40
        target.write(sound())
    return file.getvalue()


def id3(data: bytes) -> bytes:
    body = PLANTED * 3
    size = bytes((len(body) >> shift & 0x7F) for shift in (21, 14, 7, 0))
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, len(PLANTED) + 32, 1, 0) + b"\x00" * 8
    return b"ID3\x04\x00\x00" + size + body + data + PLANTED + ape + b"TAG" + PLANTED.ljust(125, b" ")


RECORDINGS = {
    "wav": recording("WAV"),
    "flac": recording("FLAC"),
    "vorbis": recording("OGG", "VORBIS"),
    "opus": recording("OGG", "OPUS"),
    "mp3": id3(recording("MP3")),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_lose_tags_and_keep_samples(name):
    assert PLANTED in RECORDINGS[name]
    clean = clean_media(RECORDINGS[name])
    assert PLANTED not in clean.data
    assert clean.removed
    before, after = (
        soundfile.read(io.BytesIO(data), dtype="int16")[0] for data in (RECORDINGS[name], clean.data)
    )
    assert len(after) > 0
    assert np.array_equal(before, after)
    assert clean_media(clean.data).data == clean.data


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"%PDF-1.7"])
def test_unknown_formats_are_refused(data):
    with pytest.raises(DataError, match="not known"):
        clean_media(data)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_cut_short_is_refused(name):
    data = PICTURES[name]
    for size in range(12, len(data) - len(PLANTED) - 2, 41):
        with pytest.raises(DataError):
            clean_media(data[:size])


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(sorted(PICTURES | RECORDINGS)),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
def test_a_damaged_file_is_cleaned_or_refused_but_never_breaks_the_cleaner(name, place, value):
    data = bytearray((PICTURES | RECORDINGS)[name])
    data[int(place * len(data))] = value
    try:
        clean_media(bytes(data))
    except DataError as error:
        told = str(error)
    else:
        told = ""
    assert PLANTED.decode() not in told

"""Every picture and sound is cut at many places: it is never taken as if it were whole."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.review.media.clean import clean_media

NOISE = np.random.default_rng(5).integers(0, 255, (40, 48, 3), dtype=np.uint8)
TONE = 0.6 * np.sin(np.arange(12_000) / 7)


def encoded_picture(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind, **options)
    return file.getvalue()


def encoded_sound(values: np.ndarray, kind: str, subtype: str, *, rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, format=kind, subtype=subtype)
    return file.getvalue()


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(np.roll(NOISE, step, 0)) for step in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], comment=b"of a person", loop=2)
    return file.getvalue()


PICTURES = {
    "jpeg": encoded_picture("JPEG"),
    "progressive": encoded_picture("JPEG", progressive=True),
    "png": encoded_picture("PNG"),
    "webp": encoded_picture("WEBP"),
    "lossless": encoded_picture("WEBP", lossless=True),
    "gif": encoded_picture("GIF"),
    "animation": animation(),
    "tiff": encoded_picture("TIFF"),
    "packed tiff": encoded_picture("TIFF", compression="tiff_lzw"),
    "bmp": encoded_picture("BMP"),
    "ppm": encoded_picture("PPM"),
}
SOUNDS = {
    "wav": encoded_sound(TONE, "WAV", "PCM_16"),
    "float": encoded_sound(TONE, "WAV", "FLOAT"),
    "aiff": encoded_sound(TONE, "AIFF", "PCM_16"),
    "flac": encoded_sound(TONE, "FLAC", "PCM_16"),
    "vorbis": encoded_sound(TONE, "OGG", "VORBIS"),
    "opus": encoded_sound(TONE, "OGG", "OPUS"),
    "mp3": encoded_sound(TONE, "MP3", "MPEG_LAYER_III"),
}
GIVEN, DECODED = ImportOptions(), ImportOptions(image_size=16, sample_rate=48_000)


def cuts(data: bytes, count: int) -> list[int]:
    """Places over the whole file, and every one near its end."""
    return sorted(
        {*np.linspace(0, len(data) - 1, count, dtype=int).tolist(), *range(len(data) - 24, len(data))}
    )


def is_taken(data: bytes, *, medium: str, options: ImportOptions) -> bool:
    """As an import takes it: the codec, and the gate for files as given."""
    try:
        value = MediaCodec(medium, options).value(data, notes=Counter())  # type: ignore[arg-type]
        if isinstance(value, bytes):
            clean_media(value)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("options", [GIVEN, DECODED], ids=["given", "decoded"])
@pytest.mark.parametrize("name", [*PICTURES, *SOUNDS])
@pytest.mark.parametrize("count", [200])
def test_a_file_cut_anywhere_is_not_taken(name: str, options: ImportOptions, count: int) -> None:
    medium, data = ("image", PICTURES[name]) if name in PICTURES else ("audio", SOUNDS[name])
    if options is DECODED or name not in ("tiff", "packed tiff", "bmp", "ppm"):
        assert is_taken(data, medium=medium, options=options)
    taken = [at for at in cuts(data, count) if is_taken(data[:at], medium=medium, options=options)]
    assert not taken


def test_an_animation_keeps_its_frames_and_loses_its_comment() -> None:
    clean = clean_media(PICTURES["animation"])
    assert [removed.kind for removed in clean.removed] == ["comment"]
    assert b"of a person" not in clean.data
    before, after = (Image.open(io.BytesIO(data)) for data in (PICTURES["animation"], clean.data))
    assert before.n_frames == after.n_frames == 3
    assert after.info["loop"] == 2
    for frame in range(3):
        before.seek(frame), after.seek(frame)
        assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes()


SAMPLES = np.array([0, 1, -1, 300, -300, 12_345, -12_345, 32_767, -32_768] * 40, np.int16)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("AIFF", subtype) for subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("FLAC", subtype) for subtype in ("PCM_16", "PCM_24")),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_the_same_in_every_format_that_can_hold_them(
    kind: str, subtype: str, rate: int, channels: int
) -> None:
    values = SAMPLES if channels == 1 else np.stack([SAMPLES, SAMPLES], axis=1)
    data = encoded_sound(values / 32_768, kind, subtype, rate=rate)
    notes: Counter[str] = Counter()
    found = MediaCodec("audio", ImportOptions(sample_rate=rate)).value(data, notes=notes)
    assert np.array_equal(found, SAMPLES)
    assert not [note for note in notes if "clipped" in note]


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_U8"), ("WAV", "ULAW"), ("WAV", "ALAW")])
def test_eight_bits_are_within_their_step(kind: str, subtype: str) -> None:
    data = encoded_sound(TONE, kind, subtype, rate=8_000)
    found = MediaCodec("audio", ImportOptions(sample_rate=8_000)).value(data, notes=Counter())
    assert np.abs(np.asarray(found) - TONE * 32_768).max() < 1_100


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
def test_sounds_over_full_scale_are_clipped_and_counted_not_wrapped(kind: str, subtype: str) -> None:
    loud = np.repeat([0.99, -0.99], 60)[np.arange(24_000) % 120].astype(np.float32)
    data = encoded_sound(loud * 1.3 if subtype == "FLOAT" else loud, kind, subtype)
    notes: Counter[str] = Counter()
    found = np.asarray(MediaCodec("audio", DECODED).value(data, notes=notes), np.float64)
    assert notes["sounds louder than full scale, clipped"] == 1
    assert np.abs(np.diff(found)).max() < 66_000
    reference = soundfile.read(io.BytesIO(data), dtype="float64")[0].clip(-1, 32_767 / 32_768)
    assert np.abs(found - reference * 32_768).max() <= 1


def test_a_header_that_claims_any_number_of_samples_costs_no_memory() -> None:
    data = bytearray(SOUNDS["flac"])
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # STREAMINFO's 36 bits of a sample count
    with pytest.raises(DataError, match="not a sound"):
        MediaCodec("audio", DECODED).value(bytes(data), notes=Counter())


RAMP = np.linspace(0, 65_535, 16 * 16).astype(np.uint16).reshape(16, 16)


def one_picture(image: Image.Image, kind: str, **options: object) -> tuple[np.ndarray, Counter[str]]:
    file = io.BytesIO()
    image.save(file, kind, **options)
    notes: Counter[str] = Counter()
    value = MediaCodec("image", DECODED).value(file.getvalue(), notes=notes)
    return np.asarray(value), notes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_range(kind: str) -> None:
    image = Image.fromarray(RAMP) if kind != "PPM" else Image.fromarray(RAMP.astype(np.int32))
    found, notes = one_picture(image, kind)
    assert np.array_equal(found[..., 0], RAMP >> 8)
    assert notes["pictures of more than 8 bits a channel, stored as 8"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_without_a_range_are_no_pixels(dtype: type) -> None:
    with pytest.raises(DataError, match="no black and white"):
        one_picture(Image.fromarray(RAMP.astype(dtype)), "TIFF")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "WEBP"])
def test_eight_bit_colour_is_exact(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found, notes = one_picture(Image.fromarray(NOISE[:16, :16]), kind, **options)
    assert np.array_equal(found, NOISE[:16, :16])
    assert not notes


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours_are_exact(mode: str) -> None:
    image = Image.fromarray(NOISE[:16, :16]).convert(mode)
    found, _ = one_picture(image, "PNG")
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_what_is_not_stored_of_a_picture_is_counted() -> None:
    see_through = np.dstack([NOISE[:16, :16], np.arange(256, dtype=np.uint8).reshape(16, 16)])
    found, notes = one_picture(Image.fromarray(see_through), "PNG")
    assert np.array_equal(found, NOISE[:16, :16])
    assert list(notes) == ["pictures with transparency: it is dropped, hidden colours show"]
    assert not one_picture(Image.fromarray(NOISE[:16, :16]).convert("RGBA"), "PNG")[1], "opaque"
    pages = {"save_all": True, "append_images": [Image.fromarray(NOISE[16:32, :16])]}
    for kind in ("TIFF", "GIF", "PNG"):
        _, notes = one_picture(Image.fromarray(NOISE[:16, :16]), kind, **pages)
        assert notes["pictures of several frames or pages: only the first is stored"] == 1
    exif = Image.Exif()
    exif[0x0112] = 6
    for picture in (Image.fromarray(NOISE[:16, :16]), Image.fromarray(RAMP)):
        upright, notes = one_picture(picture, "PNG", exif=exif)
        assert notes["pictures that EXIF says to turn, stored upright"] == 1
        plain, _ = one_picture(picture, "PNG")
        assert np.array_equal(upright, np.rot90(plain, -1))


def test_pointers_of_git_lfs_are_named() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
    for medium in ("image", "audio"):
        with pytest.raises(DataError, match="Git LFS pointer"):
            MediaCodec(medium, GIVEN).value(pointer, notes=Counter())  # type: ignore[arg-type]

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from rsc.errors import DataError
from rsc.models.config import AudioConfig, ImageConfig
from rsc.models.decode import decode_audio, decode_image, resample

SMALL = ImageConfig(height=8, width=8)
VOICE = AudioConfig(sample_rate=8000)


def encoded(image: Image.Image, *, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def wav(samples: np.ndarray, *, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def test_png_of_the_right_size_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(decode_image(encoded(Image.fromarray(pixels)), config=SMALL), pixels)


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (640, 480)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_mode_and_size_becomes_the_wanted_shape(size: tuple[int, int], mode: str) -> None:
    data = encoded(Image.new(mode, size), kind="TIFF" if mode == "CMYK" else "PNG")
    assert decode_image(data, config=SMALL).shape == (8, 8, 3)
    assert decode_image(data, config=ImageConfig(height=8, width=8, channels=1)).shape == (8, 8, 1)


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    r, g, b = decode_image(encoded(red, kind="JPEG"), config=SMALL)[4, 4].tolist()
    assert r > 200 > 60 > max(g, b)


def test_damaged_pictures_are_refused_in_words() -> None:
    good = encoded(Image.new("RGB", (64, 64)), kind="JPEG")
    for data in (b"", b"not a picture", good[:40], good[: len(good) // 2]):
        with pytest.raises(DataError, match="picture cannot be decoded"):
            decode_image(data, config=SMALL)


def test_a_picture_that_claims_to_be_huge_is_refused() -> None:
    with pytest.raises(DataError, match=r"9000 x 8000 pixels is over|cannot be decoded"):
        decode_image(encoded(Image.new("1", (9000, 8000))), config=SMALL)


def test_stereo_becomes_the_mean_of_its_channels() -> None:
    left, right = np.full(100, 0.5), np.full(100, -0.25)
    sound = decode_audio(wav(np.stack([left, right], 1), rate=8000), config=VOICE)
    assert sound.shape == (100,)
    assert sound == pytest.approx(0.125, abs=1e-3)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100, 48000])
def test_a_tone_stays_that_tone_at_another_rate(rate: int) -> None:
    """600 Hz sampled at any rate is 600 Hz at 8000, away from the ends to 1 part in 500."""
    seconds = np.arange(rate) / rate
    sound = decode_audio(wav(0.5 * np.sin(2 * np.pi * 600 * seconds), rate=rate), config=VOICE)
    assert len(sound) == 8000
    expected = 0.5 * np.sin(2 * np.pi * 600 * np.arange(8000) / 8000)
    assert np.abs(sound - expected)[200:-200].max() < 1e-3


def test_what_the_lower_rate_cannot_hold_is_removed_not_folded() -> None:
    tone = np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000)
    assert np.abs(resample(tone, rate=48000, wanted=8000))[200:-200].max() < 0.01


def test_no_sound_and_no_samples_are_named() -> None:
    with pytest.raises(DataError, match="sound has no samples"):
        decode_audio(wav(np.zeros(0), rate=8000), config=VOICE)
    with pytest.raises(DataError, match="sound cannot be decoded"):
        decode_audio(b"RIFFxxxx", config=VOICE)


def test_sixteen_bit_grey_keeps_its_range_and_floats_are_refused() -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    found = decode_image(encoded(Image.fromarray(ramp)), config=SMALL)
    assert np.array_equal(found[..., 0], ramp >> 8)
    with pytest.raises(DataError, match="no black and white"):
        decode_image(encoded(Image.fromarray(ramp.astype(np.float32)), kind="TIFF"), config=SMALL)

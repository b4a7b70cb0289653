"""Encoded pictures and sound -> arrays of the size a stem wants, or a DataError that quotes no data.

Not covered: colour profiles (pixels are read as sRGB), animation (the first frame is read).
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image, ImageOps

from rsc.errors import DataError
from rsc.models.config import AudioConfig, ImageConfig
from rsc.pixels import eight_bits

MAX_PIXELS = 64_000_000  # 8000 x 8000: a picture that claims more is refused before it is unpacked
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # never EPS, which starts Ghostscript
_HALF_WIDTH = 16  # zero crossings of the resampling filter on each side; -60 dB beyond the cut


def decode_image(data: bytes, *, config: ImageConfig) -> npt.NDArray[np.uint8]:
    """Any picture Pillow reads, turned upright by its EXIF, as uint8 [height, width, channels].

    CMYK, palette and grey of up to 16 bits become RGB (or grey); other sizes are scaled to fill and cut at
    the centre.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"picture of {image.width} x {image.height} pixels is over {MAX_PIXELS:,}")
            upright = ImageOps.exif_transpose(eight_bits(image)).convert(
                "RGB" if config.channels == 3 else "L"
            )
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for one reason: the bytes are not a picture
        raise DataError(f"picture cannot be decoded ({type(error).__name__})") from None
    if upright.size != (config.width, config.height):
        upright = ImageOps.fit(upright, (config.width, config.height), method=Image.Resampling.BICUBIC)
    return np.asarray(upright, np.uint8).reshape(config.height, config.width, config.channels)


def decode_audio(data: bytes, *, config: AudioConfig) -> npt.NDArray[np.float32]:
    """Any sound libsndfile reads, channels averaged, resampled, as float32 [samples] in -1..1.

    Raises DataError when it has no sample or is not sound.
    """
    try:
        samples_SC, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except Exception as error:  # libsndfile's own error, or a struct error in a damaged header
        raise DataError(f"sound cannot be decoded ({type(error).__name__})") from None
    if not len(samples_SC):
        raise DataError("sound has no samples")
    return resample(samples_SC.mean(1), rate=rate, wanted=config.sample_rate)


def resample(samples_S: npt.NDArray[Any], *, rate: int, wanted: int) -> npt.NDArray[np.float32]:
    """Band-limited resampling by a Hann-windowed sinc (Smith, "Digital Audio Resampling", 2002).

    Output n is at time n / wanted; length ceil(S * wanted / rate). Each of the `wanted / gcd` phases is
    one dot product per output, so the cost is S * wanted / rate * 2 * _HALF_WIDTH * max(1, rate / wanted).
    """
    if rate == wanted:
        return np.ascontiguousarray(samples_S, np.float32)
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    cut = min(1.0, up / down)  # of the source's half rate: what both rates can hold
    reach = math.ceil(_HALF_WIDTH / cut)
    padded = np.pad(np.asarray(samples_S, np.float64), reach)
    out = np.zeros(-(-len(samples_S) * up // down))
    for phase in range(min(up, len(out))):
        places = np.arange(phase, len(out), up) * down
        whole, fraction = places // up, (phase * down % up) / up
        offset = np.arange(-reach + 1, reach + 1)
        away = offset - fraction
        taps = cut * np.sinc(cut * away) * (0.5 + 0.5 * np.cos(np.pi * np.clip(away / reach, -1, 1)))
        out[phase::up] = padded[whole[:, None] + offset + reach] @ taps
    return out.astype(np.float32)

"""Is this a picture, is this a sound? And their pixels or samples, where a set is imported decoded."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.store.format.schema import Field

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"})
MAX_PIXELS = 1 << 28  # a picture that claims more is a decompression bomb or a mistake


@dataclass(frozen=True)
class MediaCodec:
    """How one field of pictures or sounds is stored: the file as given, or what is in it."""

    medium: Literal["image", "audio"]
    options: ImportOptions

    def field(self, name: str) -> Field:
        if self.medium == "image":
            shape = self.options.image_shape
            return Field(name, "bytes") if shape is None else Field(name, "tensor", "uint8", shape)
        return Field(name, "bytes") if self.options.sample_rate is None else Field(name, "tokens", "int16")

    def value(self, data: bytes, *, notes: Counter[str]) -> bytes | np.ndarray:
        """What is stored of a file; `notes` counts what is unusual about it.

        Raises DataError, in words without the data, when it does not decode.
        """
        if self.medium == "audio":
            return self._sound(data, notes=notes)
        with _open_image(data) as image:
            shape = self.options.image_shape
            notes.update(_remarks(image, shape=shape))
            return data if shape is None else _pixels(image, height=shape[0], width=shape[1])

    def _sound(self, data: bytes, *, notes: Counter[str]) -> bytes | np.ndarray:
        rate = self.options.sample_rate
        found = data if rate is None else audio_samples(data, sample_rate=rate)
        if _num_channels(data) > 1:
            notes["sounds of several channels" + ("" if rate is None else ", averaged to one")] += 1
        return found


def _remarks(image: Image.Image, *, shape: tuple[int, int, int] | None) -> Iterator[str]:
    if image.size == (1, 1):
        yield "pictures of a single pixel"
    if image.mode == "CMYK":
        yield "pictures in CMYK" + ("" if shape is None else ", stored as RGB")
    if shape is not None and (image.height < shape[0] or image.width < shape[1]):
        yield "pictures smaller than image_size, enlarged"


def _pixels(image: Image.Image, *, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]. The camera's orientation is applied; another shape is scaled to cover
    (bicubic) and cut in the middle; palettes, transparency and CMYK become RGB.

    Raises DataError when the picture does not decode.
    """
    try:
        pixels = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"does not decode: {type(error).__name__}") from None
    if pixels.size != (width, height):
        scale = max(width / pixels.width, height / pixels.height)
        size = (max(width, round(pixels.width * scale)), max(height, round(pixels.height * scale)))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        resized = pixels.resize(size, Image.Resampling.BICUBIC)
        pixels = resized.crop((left, top, left + width, top + height))
    return np.asarray(pixels)


def _num_channels(data: bytes) -> int:
    """Read the header. Raises DataError when it is no sound, or one of no length."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError):
        raise DataError("not a sound file that we can decode") from None
    if info.frames == 0:
        raise DataError("a sound of no length")
    return int(info.channels)


def audio_samples(data: bytes, *, sample_rate: int) -> np.ndarray:
    """int16 [S], channels averaged. Raises DataError for another rate: resampling is the owner's choice."""
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError):
        raise DataError("not a sound file that we can decode") from None
    if rate != sample_rate:
        raise DataError(f"sample rate {rate}, not {sample_rate}")
    if not len(samples):
        raise DataError("a sound of no length")
    mono: np.ndarray = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1).astype(np.int16)
    return mono


def _open_image(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError("not a picture that we can decode") from None
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels: more than we decode")
    return image

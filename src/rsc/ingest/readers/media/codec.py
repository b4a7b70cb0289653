"""How a field of pictures or sounds is stored: the files as given, or their pixels and samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.media.pictures import decoding, open_picture, pixels, remarks, require_whole
from rsc.ingest.readers.media.sounds import sound
from rsc.review.media.clean import CLEANED
from rsc.review.media.recognise import format_of, is_lfs_pointer
from rsc.store.format.schema import Field

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif"})


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

        Raises DataError, in words without the data, when it does not decode or is not whole.
        """
        if is_lfs_pointer(data):
            raise DataError("a Git LFS pointer, not the file itself: run `git lfs pull` where it is from")
        if self.medium == "audio":
            return sound(data, sample_rate=self.options.sample_rate, notes=notes)
        return self._picture(data, notes=notes)

    def _picture(self, data: bytes, *, notes: Counter[str]) -> bytes | np.ndarray:
        shape = self.options.image_shape
        with decoding(), open_picture(data) as image:
            if shape is None:
                _require_cleaner(data)  # the gate parses the file to its end
                notes.update(remarks(image, data, shape=None))
                return data
            require_whole(image, data)
            notes.update(remarks(image, data, shape=shape))
            return pixels(image, height=shape[0], width=shape[1])


def _require_cleaner(data: bytes) -> None:
    name = format_of(data)
    if name not in CLEANED:
        raise DataError(f"a {name} file cannot be stored as given (its metadata stays in it): set image_size")

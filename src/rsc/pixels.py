"""Pictures of any depth as 8 bits a channel, by their own range; or an error where they state none.

Pillow's `convert` clips: 16-bit grey becomes white, floats become 0 and 1. The importer and the models
decode pictures, and both take their pixels from here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from rsc.errors import DataError

ORIENTATION = 0x0112  # EXIF 2.32, table 4
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def eight_bits(image: Image.Image) -> Image.Image:
    """`image`, or its grey of 9 to 16 bits as mode L: the high 8 bits, as for colour.

    Raises DataError for floats and 32-bit whole numbers, whose black and white are nowhere stated.
    """
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16) >> _depth(image) - 8
        if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 255 - grey
        return _grey(grey, like=image)
    if image.mode == "I" and image.format == "PPM":  # read as 16 bits whatever its maximum
        return _grey(np.asarray(image) >> 8, like=image)
    if image.mode in ("I", "F"):
        what = "floats" if image.mode == "F" else "32-bit whole numbers"
        raise DataError(f"its pixels are {what}, which have no black and white of their own")
    return image


def bits_of(image: Image.Image, data: bytes) -> int:
    """Bits a channel, as the file states them; 8 where it has no say."""
    if image.format == "PNG":
        return data[24]  # IHDR's fourth field
    if image.format == "TIFF":
        return _depth(image)
    return 16 if image.mode.startswith("I") else 32 if image.mode == "F" else 8


def _grey(values: np.ndarray, *, like: Image.Image) -> Image.Image:
    """Values 0 to 255 as a picture that is turned as `like` is."""
    grey = Image.fromarray(values.astype(np.uint8))
    if (orientation := like.getexif().get(ORIENTATION)) is not None:
        grey.getexif()[ORIENTATION] = orientation
    return grey


def _depth(image: Image.Image) -> int:
    found = _tiff_tag(image, _BITS_PER_SAMPLE)
    if found is None:
        return 16 if image.mode.startswith("I") else 8
    return int(found[0] if isinstance(found, tuple) else found)


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return None if tags is None else tags.get(tag)

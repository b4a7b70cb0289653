"""One picture: is it whole, what is unusual about it, and its pixels where a set is imported decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from rsc.errors import DataError
from rsc.pixels import ORIENTATION, bits_of, eight_bits
from rsc.review.media.clean import CLEANED, clean_media
from rsc.review.media.recognise import format_of

MAX_PIXELS = 1 << 28  # a picture that claims more is a decompression bomb or a mistake
_DECODERS = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "ppm": "PPM",
}  # fmt: skip
_OFFSETS_AND_SIZES = ((273, 279), (324, 325))  # TIFF 6.0: strips, and tiles (section 15)


def open_picture(data: bytes) -> Image.Image:
    """Raises DataError when it is no picture of a format that is decoded here, or claims too many pixels."""
    name = format_of(data)
    if name is not None and name not in _DECODERS:
        raise DataError(f"a {name} file, which is not decoded here")
    if name is None:
        raise DataError("not a picture that we can decode")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=[_DECODERS[name]])
    except Exception:  # Pillow raises many kinds for damaged bytes
        raise DataError("not a picture that we can decode") from None
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels: more than we decode")
    return image


@contextmanager
def decoding() -> Iterator[None]:
    """Raises DataError for whatever Pillow raises."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"does not decode: {type(error).__name__}") from None


def remarks(image: Image.Image, data: bytes, *, shape: tuple[int, int, int] | None) -> Iterator[str]:
    """What is unusual about a picture, and what becomes of it when it is decoded to `shape`."""
    is_decoded = shape is not None
    if image.size == (1, 1):
        yield "pictures of a single pixel"
    if image.mode == "CMYK":
        yield "pictures in CMYK" + (", stored as RGB" if is_decoded else "")
    if getattr(image, "n_frames", 1) > 1:
        yield "pictures of several frames or pages" + (": only the first is stored" if is_decoded else "")
    if bits_of(image, data) > 8:
        yield "pictures of more than 8 bits a channel" + (", stored as 8" if is_decoded else "")
    if shape is None:
        return  # what follows has to decode, and is kept in the file
    if _has_transparency(image):
        yield "pictures with transparency: it is dropped, hidden colours show"
    if image.getexif().get(ORIENTATION, 1) != 1:
        yield "pictures that EXIF says to turn, stored upright"
    if image.height < shape[0] or image.width < shape[1]:
        yield "pictures smaller than image_size, enlarged"


def pixels(image: Image.Image, *, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]. The camera's orientation is applied; another shape is scaled to cover
    (bicubic) and cut in the middle; palettes, transparency, CMYK and 16-bit grey become 8-bit RGB.

    Raises DataError when its numbers have no range.
    """
    upright = ImageOps.exif_transpose(eight_bits(image)).convert("RGB")
    if upright.size != (width, height):
        scale = max(width / upright.width, height / upright.height)
        size = (max(width, round(upright.width * scale)), max(height, round(upright.height * scale)))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        resized = upright.resize(size, Image.Resampling.BICUBIC)
        upright = resized.crop((left, top, left + width, top + height))
    return np.asarray(upright)


def require_whole(image: Image.Image, data: bytes) -> None:
    """Raises DataError where the end of the file, or of its pixels, is missing."""
    if (name := format_of(data)) in CLEANED:
        clean_media(data)  # parses the file to its end
    elif name == "tiff":
        _require_whole_tiff(image, len(data))
    elif name == "bmp" and 0 != int.from_bytes(data[2:6], "little") > len(data):
        raise DataError(f"its header says {int.from_bytes(data[2:6], 'little')} bytes, {len(data)} are there")


def _has_transparency(image: Image.Image) -> bool:
    if "transparency" in image.info:
        return True
    if not image.mode.endswith(("A", "a")):
        return False
    low, _ = image.getchannel("A").getextrema()
    return bool(isinstance(low, int) and low < 255)


def _require_whole_tiff(image: Image.Image, size_bytes: int) -> None:
    """Raises DataError where strips or tiles of the first page lie behind the end of the file."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    for offsets, sizes in _OFFSETS_AND_SIZES:
        pieces = zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False)
        if any(offset + size > size_bytes for offset, size in pieces):
            raise DataError(f"its pixels end behind the end of the file, which has {size_bytes} bytes")

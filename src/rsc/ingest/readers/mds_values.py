"""Values of MDS columns: the encodings that are read, their fields and decoders."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.store.format.schema import Field

_SCALARS = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
TEXTS = ("str", "json", "str_int", "str_float", "str_decimal")
_SHAPE = re.compile(r"|[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_SHAPE_DTYPES = ("<u1", "<u2", "<u4", "<u8")

Decoder: TypeAlias = Callable[[bytes], Any] | MediaCodec


def codec(name: str, encoding: str, options: ImportOptions) -> tuple[Field, Decoder]:
    """Field and decoder of one encoding. Raises ConfigError for those that we do not read."""
    if encoding in TEXTS:
        return Field(name, "string"), bytes.decode
    if encoding in ("jpeg", "png"):
        media = MediaCodec("image", options)
        return media.field(name), media
    if encoding == "bytes":
        return Field(name, "bytes"), bytes
    if encoding in ("int", *_SCALARS):
        dtype = np.dtype("int64" if encoding == "int" else encoding)
        return Field(name, "tensor", dtype.name), lambda data: np.frombuffer(data, dtype).reshape(())[()]
    kind, _, rest = encoding.partition(":")
    dtype_name, _, shape = rest.partition(":")
    if kind == "ndarray" and dtype_name in _SCALARS and _SHAPE.fullmatch(shape):
        return _array_codec(name, np.dtype(dtype_name), shape)
    raise ConfigError(
        f"column {name!r} is encoded as {encoding}, which is not read here",
        hint="choose the others with --fields" + ("; pickles can run code" if encoding == "pkl" else ""),
    )


def _array_codec(name: str, dtype: np.dtype[Any], shape: str) -> tuple[Field, Callable[[bytes], Any]]:
    if shape:
        sizes = tuple(map(int, shape.split(",")))
        return Field(name, "tensor", dtype.name, sizes), lambda data: np.frombuffer(data, dtype).reshape(
            sizes
        )
    return Field(name, "tokens", dtype.name), lambda data: _shaped_array(data, dtype)


def _shaped_array(data: bytes, dtype: np.dtype[Any]) -> np.ndarray:
    """An array that carries its shape: dims and the width of a size in one byte, sizes, values."""
    num_dims, width = data[0] >> 2, np.dtype(_SHAPE_DTYPES[data[0] & 3])
    if num_dims != 1:
        raise DataError(f"an array of {num_dims} dims where the shape is not fixed")
    size = int(np.frombuffer(data, width, count=1, offset=1)[0])
    values = np.frombuffer(data, dtype, offset=1 + width.itemsize)
    if len(values) != size:
        raise DataError(f"an array that counts {size} values and holds {len(values)}")
    return values

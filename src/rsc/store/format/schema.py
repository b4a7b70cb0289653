"""The fields of a sample and of a split. docs/format.md has the same in words."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from rsc.errors import ConfigError

MAX_FRAME_BYTES = 1 << 30  # offsets are u32, and one AES-GCM call takes less than 2^31 bytes
OFFSET_BYTES = 4

Kind: TypeAlias = Literal["tensor", "tokens", "bytes", "string"]
_KINDS = ("tensor", "tokens", "bytes", "string")
_DTYPES = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4",
    "uint32": "<u4", "int64": "<i8", "uint64": "<u8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
    "complex64": "<c8", "complex128": "<c16",
    "bfloat16": "<u2",  # numpy has no bfloat16: its bit pattern, for torch to view
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Field:
    """One field of a sample. `tensor` has a fixed `shape`; `tokens` is 1-D of any length; `bytes` and
    `string` (UTF-8) are uint8 of any length. `missing` is the number that stands for "no value" in a field
    of single whole numbers; no record has it as a value. Raises ConfigError for what the format cannot say.
    """

    name: str
    kind: Kind
    dtype: str = "uint8"
    shape: tuple[int, ...] = ()
    missing: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or _NAME.fullmatch(self.name) is None:
            raise ConfigError(
                f"{self.name!r} is not a field name", hint="letters, digits and _ . - only, up to 64"
            )
        if self.kind not in _KINDS:
            raise ConfigError(f"field {self.name}: kind {self.kind!r} is not one of {', '.join(_KINDS)}")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"field {self.name}: dtype {self.dtype!r} is not one of {', '.join(_DTYPES)}")
        if self.kind in ("bytes", "string") and self.dtype != "uint8":
            raise ConfigError(f"field {self.name}: {self.kind} is always uint8, not {self.dtype}")
        if self.is_ragged and self.shape:
            raise ConfigError(f"field {self.name}: {self.kind} has no shape, got {self.shape}")
        if (
            not all(isinstance(size, int) and size > 0 for size in self.shape)
            or self.row_bytes > MAX_FRAME_BYTES
        ):
            raise ConfigError(
                f"field {self.name}: shape {self.shape} must be sizes above 0, a sample under 1 GiB"
            )
        if self.missing is not None and not self._can_mark(self.missing):
            raise ConfigError(f"field {self.name}: {self.missing!r} cannot mark missing {self.dtype} values")

    def _can_mark(self, number: object) -> bool:
        if self.kind != "tensor" or self.shape or self.storage.kind not in "iu" or self.dtype == "bfloat16":
            return False
        limits = np.iinfo(self.storage)
        return type(number) is int and limits.min <= number <= limits.max

    @property
    def is_ragged(self) -> bool:
        return self.kind != "tensor"

    @cached_property
    def storage(self) -> np.dtype[Any]:
        """How numpy sees one item on disk and in memory."""
        return np.dtype(_DTYPES[self.dtype])

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample of a fixed column; of the offset of a variable one."""
        return OFFSET_BYTES if self.is_ragged else self.storage.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class Schema:
    """The fields of every sample of a split, in stored order. Raises ConfigError for a repeated name."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        names = [field.name for field in self.fields]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"a schema needs fields with different names, got {names}")

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON values, in stored order."""
        return [
            {"name": field.name, "kind": field.kind, "dtype": field.dtype, "shape": list(field.shape)}
            | ({} if field.missing is None else {"missing": field.missing})
            for field in self.fields
        ]

    @classmethod
    def from_dict(cls, fields: list[dict[str, Any]]) -> Schema:
        """Inverse of `to_dict`. Raises ConfigError for anything else."""
        try:
            return cls(tuple(Field(**{**field, "shape": tuple(field["shape"])}) for field in fields))
        except (TypeError, KeyError):
            raise ConfigError(f"not a schema: {json.dumps(fields, default=str)[:200]}") from None

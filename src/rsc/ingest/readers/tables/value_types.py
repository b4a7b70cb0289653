"""What was seen in a field of loose values (JSON), and the stored type that holds all of it without a change.

| values                                  | field                                                     |
|-----------------------------------------|-----------------------------------------------------------|
| whole numbers                           | int64, else uint64, else string of their digits           |
| whole numbers, some missing             | the same; `missing` of the field stands for "no value"    |
| numbers, with a fraction among them     | float64 where every whole one is exact in it, else string |
| true and false                          | uint8; 255 for missing                                    |
| lists of numbers, all of one shape      | tensor of that shape, int64 or float64                    |
| lists of numbers of any length          | tokens, int64 or float64                                  |
| other lists that hold only numbers      | string of their JSON, not scanned                         |
| everything else                         | string; lists and objects as JSON                         |

A JSON number with a fraction is the float64 nearest to it, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rsc.store.format.schema import Field

EXACT_IN_FLOAT64 = 1 << 53  # every whole number up to here
MISSING = {"int64": -(1 << 63), "uint64": (1 << 64) - 1, "uint8": 255}
"""What stands for a missing value: the end of the range, where ids and labels are not."""

_INT64, _UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)
_MAX_DEPTH = 8  # of lists in lists that are looked at as numbers; deeper ones are JSON
_NUMBERS, _TRUTHS, _LISTS = {"int", "float", "null"}, {"bool", "null"}, {"numbers", "nested", "null"}


@dataclass
class Seen:
    """Facts about the values of a field; they add up, so that a source can be looked at piece by piece.

    `kinds` are of `null bool int float text numbers nested`. `low` and `high` bound the whole numbers, those
    in lists too. `shapes` are those of the lists of numbers; None stands for lists of unequal lengths.
    """

    kinds: set[str] = field(default_factory=set)
    low: int = 0
    high: int = 0
    has_fraction: bool = False
    shapes: set[tuple[int, ...] | None] = field(default_factory=set)

    def add(self, values: Iterable[Any]) -> None:
        wholes: list[int] = []
        for value in values:
            kind = kind_of(value)
            if kind == "int":
                wholes.append(value)
            elif kind == "nested" and type(value) is list:
                kind = self._add_list(value)
            self.kinds.add(kind)
        if wholes:
            self._bound(wholes)

    def merged(self, other: Seen) -> Seen:
        return Seen(
            self.kinds | other.kinds,
            min(self.low, other.low),
            max(self.high, other.high),
            self.has_fraction or other.has_fraction,
            self.shapes | other.shapes,
        )

    @property
    def allowed(self) -> set[str] | None:
        """Kinds that the field takes; None for all. A value of another one makes its record bad."""
        values = self.kinds - {"null"}
        for family in (_NUMBERS, _TRUTHS, _LISTS):
            if values and values <= family and values != {"nested"}:
                return family if self.is_typed else None
        return None

    @property
    def is_typed(self) -> bool:
        """Whether the values are stored as numbers."""
        return _field("any", self).kind != "string"

    @property
    def is_all_numbers(self) -> bool:
        """Whether nothing but lists of numbers was seen: no text to look at."""
        return bool(self.kinds) and self.kinds <= {"numbers", "null"} and self.kinds != {"null"}

    def _add_list(self, value: list[Any]) -> str:
        leaves: list[int | float] = []
        shape = _shape(value, leaves, depth=1)
        if shape == ():
            return "nested"
        self.shapes.add(shape)
        self.has_fraction |= float in set(map(type, leaves))
        self._bound([leaf for leaf in leaves if type(leaf) is int])
        return "numbers"

    def _bound(self, wholes: Sequence[int]) -> None:
        if wholes:
            self.low, self.high = min(self.low, *wholes), max(self.high, *wholes)


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if value is None:
        return "null"
    return {int: "int", float: "float", str: "text"}.get(type(value), "nested")


def field_for(name: str, seen: Seen) -> Field:
    """The narrowest field of the table above."""
    return replace(_field("any", seen), name=name)


def whole_field(name: str, *, low: int, high: int, is_nullable: bool) -> Field:
    """For whole numbers from `low` to `high`; the marker of a missing one must not be among them."""
    room = int(is_nullable)
    if low - room >= _INT64.min and high <= _INT64.max:
        dtype = "int64"
    elif low >= 0 and high + room <= _UINT64.max:
        dtype = "uint64"
    else:
        return Field(name, "string")
    return Field(name, "tensor", dtype, missing=MISSING[dtype] if is_nullable else None)


def _field(name: str, seen: Seen) -> Field:
    values, is_nullable = seen.kinds - {"null"}, "null" in seen.kinds
    if values == {"bool"}:
        return Field(name, "tensor", "uint8", missing=MISSING["uint8"] if is_nullable else None)
    if values == {"int"}:
        return whole_field(name, low=seen.low, high=seen.high, is_nullable=is_nullable)
    is_exact = max(-seen.low, seen.high) <= EXACT_IN_FLOAT64
    if values and values <= {"int", "float"} and is_exact:
        return Field(name, "tensor", "float64")
    if values == {"numbers"} and (is_exact or not seen.has_fraction):
        return _list_field(name, seen, is_nullable=is_nullable)
    return Field(name, "string")


def _list_field(name: str, seen: Seen, *, is_nullable: bool) -> Field:
    dtype = "float64" if seen.has_fraction else "int64"
    if not seen.has_fraction and not (_INT64.min <= seen.low and seen.high <= _INT64.max):
        return Field(name, "string")
    if len(seen.shapes) == 1 and not is_nullable:
        (shape,) = seen.shapes
        if shape is not None and all(shape):
            return Field(name, "tensor", dtype, shape)
    is_flat = all(shape is not None and len(shape) == 1 for shape in seen.shapes)
    return Field(name, "tokens", dtype) if is_flat and not is_nullable else Field(name, "string")


def _shape(value: list[Any], leaves: list[int | float], *, depth: int) -> tuple[int, ...] | None:
    """The shape of lists of numbers, None where lengths differ, () for anything else."""
    kinds = set(map(type, value))
    if kinds <= {int, float}:
        leaves += value
        return (len(value),)
    if kinds != {list} or depth == _MAX_DEPTH:
        return ()
    inner = {_shape(item, leaves, depth=depth + 1) for item in value}
    if () in inner:
        return ()
    (only,) = inner if len(inner) == 1 else (None,)
    return None if only is None else (len(value), *only)

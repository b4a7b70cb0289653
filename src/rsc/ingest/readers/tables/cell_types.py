"""What was seen in a column of text cells, and the stored type from which every cell can be written again.

A column is numbers only where that loses nothing: whole numbers without a leading zero or plus, and fractions
in one of these spellings, kept by every cell of the column:

- no needless zeros (`0.5`, `12`, `1.5e-7`), as spreadsheets write;
- Python's and pandas' own (`0.5`, `12.0`, `1e-07`);
- one number of decimals (`0.50`, `12.00`), as `%.2f` and `%.6e` write.

So `1.1` beside `1.10`, `007`, `12e4567` (a hash) and 19 digits with a fraction are text. An empty cell is a
missing value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsc.ingest.readers.tables.value_types import EXACT_IN_FLOAT64, whole_field
from rsc.store.format.schema import Field

WHOLE = re.compile(r"0|-?[1-9][0-9]{0,80}")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
LIKE_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class CellsSeen:
    """Facts about cells; `merged` adds up those of two pieces of a column.

    `is_short`, `is_repr` and `decimals` say which of the spellings above all cells keep; `decimals` is None
    where no number of them holds for all.
    """

    has_empty: bool = False
    has_filled: bool = False
    has_words: bool = False
    is_whole: bool = True
    low: int = 0
    high: int = 0
    is_short: bool = True
    is_repr: bool = True
    decimals: str | None = ""

    def merged(self, other: CellsSeen) -> CellsSeen:
        same = self.decimals if self.decimals == other.decimals else None
        if not (self.has_filled and other.has_filled):
            same = self.decimals if self.has_filled else other.decimals
        return CellsSeen(
            self.has_empty or other.has_empty,
            self.has_filled or other.has_filled,
            self.has_words or other.has_words,
            self.is_whole and other.is_whole,
            min(self.low, other.low),
            max(self.high, other.high),
            self.is_short and other.is_short,
            self.is_repr and other.is_repr,
            same,
        )

    def field(self, name: str) -> Field:
        if self.has_words or not self.has_filled:
            return Field(name, "string")
        if self.is_whole:
            return whole_field(name, low=self.low, high=self.high, is_nullable=self.has_empty)
        if self.is_short or self.is_repr or self.decimals is not None:
            return Field(name, "tensor", "float64")
        return Field(name, "string")


def look_at(cells: Sequence[str]) -> CellsSeen:
    """The facts about some cells of a column."""
    filled = [cell for cell in cells if cell]
    has_empty = len(filled) < len(cells)
    if not filled:
        return CellsSeen(has_empty)
    if all(map(WHOLE.fullmatch, filled)):
        low, high = min(map(int, filled)), max(map(int, filled))
        is_exact = max(-low, high) <= EXACT_IN_FLOAT64
        decimals = "f0" if is_exact else None
        return CellsSeen(has_empty, True, False, True, low, high, is_exact, False, decimals)
    if not all(map(_FRACTION.fullmatch, filled)):
        return CellsSeen(has_empty, True, has_words=True)
    numbers = list(map(float, filled))
    is_repr = all(map(str.__eq__, map(repr, numbers), filled))
    is_short = all(map(_is_short, filled, numbers))
    styles = {_style(cell) for cell in filled}
    style = styles.pop() if len(styles) == 1 else None
    if style is not None and not all(map(_is_written, filled, numbers, [style] * len(filled))):
        style = None
    return CellsSeen(has_empty, True, False, False, 0, 0, is_short, is_repr, style)


def convert(cells: Sequence[str], item: Field) -> np.ndarray:
    """Numbers of cells that were proven to fit; an empty one is the field's missing value, or NaN."""
    if item.dtype == "float64":
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    missing = 0 if item.missing is None else item.missing
    return np.array([int(cell) if cell else missing for cell in cells], dtype=item.storage)


def _is_short(cell: str, number: float) -> bool:
    """Whether no zero of the cell could be left out, and the number is written by these digits."""
    mantissa, mark, exponent = cell.lower().partition("e")
    if "." in mantissa and mantissa.endswith("0"):
        return False
    if not mark:
        written = repr(number)
        return written in (cell, cell + ".0") or f"{number:.{_num_decimals(mantissa)}f}" == cell
    decimals = _num_decimals(mantissa)
    found, _, found_exponent = f"{number:.{decimals}e}".partition("e")
    return found == mantissa and int(found_exponent) == int(exponent) and float(cell) == number


def _style(cell: str) -> str:
    mantissa, mark, _ = cell.partition("e")
    return f"{mark or 'f'}{_num_decimals(mantissa)}"


def _is_written(cell: str, number: float, style: str) -> bool:
    return f"{number:.{style[1:]}{style[0]}}" == cell


def _num_decimals(mantissa: str) -> int:
    return len(mantissa.partition(".")[2])

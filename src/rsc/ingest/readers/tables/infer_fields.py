"""From rows of loose values (JSON, CSV) to typed columns, without losing a row in silence.

| seen in the first rows      | stored as                                              |
|-----------------------------|--------------------------------------------------------|
| text, or text and numbers   | string; a missing value becomes "" and is counted       |
| whole numbers               | int64; a missing value makes the row bad                |
| numbers, or numbers missing | float64; a missing value becomes NaN and is counted     |
| true / false                | uint8                                                   |
| lists, objects              | string holding their JSON                               |

The table is fixed by the first rows; a later row that does not fit is bad and goes to quarantine.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsc.config import nearest
from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord, Chunk, Values
from rsc.review.public_text import public_field_names
from rsc.store.format.schema import Field

Row = Mapping[str, Any]
SAMPLE_ROWS = 1000  # rows looked at to fix the types; more costs start-up time, fewer finds fewer nulls

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")  # the store's alphabet for field names
_LIKE_A_NAME = re.compile(r"[A-Za-z_][A-Za-z_.-]*[0-9]{0,3}")
_SCALARS = {"int64": "whole number", "float64": "number", "uint8": "true or false"}


@dataclass(frozen=True)
class SourceField:
    """A field as the store knows it, and what it is called in the source."""

    source_name: str
    field: Field


@dataclass
class Table:
    """Columns of the rows that fitted, and the rows that did not (position -> reason)."""

    columns: dict[str, Values]
    bad: dict[int, str]
    notes: Counter[str] = field(default_factory=Counter)

    def to_chunk(self, *, numbers: Sequence[int], bad: Iterable[BadRecord], size_bytes: int) -> Chunk:
        """The rows that fitted; `numbers` are the records of all rows, `bad` those that are in no column."""
        kept = [number for row, number in enumerate(numbers) if row not in self.bad] if self.bad else numbers
        return Chunk(
            columns=self.columns,
            numbers=np.array(kept, dtype=np.uint64),
            size_bytes=size_bytes,
            bad=sorted(bad, key=lambda record: record.record),
            notes=dict(self.notes),
        )


def infer_fields(rows: Iterable[Row], *, options: ImportOptions) -> tuple[SourceField, ...]:
    """The fields to take, in order of first appearance.

    Raises DataError when no row has any, ConfigError when the options ask for one that is not there.
    """
    seen: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    sample = list(rows)
    for row in sample:
        for name, value in row.items():
            seen.setdefault(name, set()).add(_kind(value))
            counts[name] += 1
    if not seen:
        raise DataError(
            "no field was found in the first records", hint="each record needs at least one field"
        )
    for name, count in counts.items():
        if count < len(sample):
            seen[name].add("null")
    chosen = {name: seen[name] for name in chosen_names(list(seen), options=options)}
    stored = stored_names(
        list(chosen), texts=[n for n, kinds in chosen.items() if _is_text(kinds)], options=options
    )
    return tuple(SourceField(name, _field(stored[name], kinds)) for name, kinds in chosen.items())


def stored_names(names: Sequence[str], *, texts: Sequence[str], options: ImportOptions) -> dict[str, str]:
    """What each source field is called in the store: the text to train on is `text`, the rest keep
    their names as far as the store's alphabet allows. Raises ConfigError when two would be called alike.
    """
    text = options.text_field or ("text" if "text" in names else texts[0] if len(texts) == 1 else None)
    public = public_field_names(names)
    stored = {name: "text" if name == text else _NOT_IN_NAMES.sub("_", public[name]) or "_" for name in names}
    stored = {name: f"_{new}"[:64] if new[0] in "0123456789.-" else new[:64] for name, new in stored.items()}
    for new, count in Counter(stored.values()).items():
        if count > 1:
            twins = " and ".join(repr(name) for name in names if stored[name] == new)
            raise ConfigError(
                f"fields {twins} would both be stored as {new!r}", hint="choose one with --fields"
            )
    return stored


def to_table(rows: Sequence[Row], *, fields: Sequence[SourceField], all_fields: bool) -> Table:
    """Columns of `rows`. With `all_fields` a field outside `fields` is noted, else it was not wanted."""
    bad: dict[int, str] = {}
    notes: Counter[str] = Counter()
    columns = {item.field.name: _column(rows, item, bad=bad, notes=notes) for item in fields}
    if bad:
        keep = [index for index in range(len(rows)) if index not in bad]
        columns = {name: _take(values, keep) for name, values in columns.items()}
    if all_fields and sum(map(len, rows)) > len(rows) * len(fields) - _num_missing(rows, fields):
        known = {item.source_name for item in fields}
        notes.update(_late_field(name) for row in rows for name in row.keys() - known)
    return Table(columns=columns, bad=bad, notes=notes)


def _late_field(name: str) -> str:
    """A key that comes late may be a value; only what reads like a name is named in the open."""
    shown = repr(name) if _LIKE_A_NAME.fullmatch(name) else "(its name is withheld)"
    return f"field {shown} is not in the first records: left out"


def chosen_names(names: Sequence[str], *, options: ImportOptions) -> list[str]:
    """The names that the options ask for. Raises ConfigError for one that is not there."""
    text = [options.text_field] if options.text_field else []
    wanted = [*(names if options.fields is None else options.fields), *text]
    for name in wanted:
        if name not in names:
            raise ConfigError(f"the source has no field {name!r}", hint=nearest(name, names, what="--fields"))
    return list(dict.fromkeys(wanted))


def _is_text(kinds: set[str]) -> bool:
    return "text" in kinds and kinds <= {"text", "null"}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if value is None:
        return "null"
    return {int: "int", float: "float", str: "text"}.get(type(value), "nested")


def _field(name: str, kinds: set[str]) -> Field:
    values = kinds - {"null"}
    if values == {"bool"} and "null" not in kinds:
        return Field(name, "tensor", dtype="uint8")
    if values == {"int"} and "null" not in kinds:
        return Field(name, "tensor", dtype="int64")
    if values and values <= {"int", "float"}:
        return Field(name, "tensor", dtype="float64")
    return Field(name, "string")


def _column(rows: Sequence[Row], source: SourceField, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    item = source.field
    values = [row.get(source.source_name) for row in rows]
    types = set(map(type, values))
    if item.kind == "string":
        return values if types == {str} else _texts(values, name=item.name, notes=notes)
    exact = {"int64": {int}, "float64": {float}, "uint8": {bool}}[item.dtype]
    if types == exact:
        try:
            return np.array(values, dtype=item.dtype)
        except OverflowError:
            pass
    return _numbers(values, item, bad=bad, notes=notes)


def _texts(values: Sequence[Any], *, name: str, notes: Counter[str]) -> list[str]:
    missing = sum(value is None for value in values)
    if missing:
        notes[f"field {name!r} missing: stored as empty text"] += missing
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _numbers(values: Sequence[Any], item: Field, *, bad: dict[int, str], notes: Counter[str]) -> np.ndarray:
    convert: Callable[[Any], Any] = {"int64": _whole, "float64": _number, "uint8": _boolean}[item.dtype]
    column = np.zeros(len(values), dtype=item.dtype)
    for index, value in enumerate(values):
        if value is None and item.dtype == "float64":
            notes[f"field {item.name!r} missing: stored as NaN"] += 1
        try:
            column[index] = convert(value)
        except (TypeError, ValueError, OverflowError):
            wanted, found = _SCALARS[item.dtype], _found(value)
            bad.setdefault(index, f"field {item.name!r}: a {wanted} was expected, found {found}")
    return column


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _boolean(value: Any) -> int:
    if type(value) is not bool:
        raise TypeError
    return int(value)


def _found(value: Any) -> str:
    words = {"null": "nothing", "text": "text", "bool": "true or false", "nested": "a list or an object"}
    return words.get(_kind(value), "a number that does not fit")


def _take(values: Values, keep: list[int]) -> Values:
    return values[keep] if isinstance(values, np.ndarray) else [values[index] for index in keep]


def _num_missing(rows: Sequence[Row], fields: Sequence[SourceField]) -> int:
    return sum(item.source_name not in row for item in fields for row in rows)

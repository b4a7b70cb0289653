"""From rows of loose values (JSON) to typed columns, without a changed value or a row lost in silence.

The first rows give the types (value_types.py). Every later row is proven to fit: a number that the type does
not hold raises NarrowTypes, and the import begins again with the types of the whole source. A value of
another kind (a word among numbers) makes its record bad. A declared type is never changed: what does not fit
is bad.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord, Chunk, NarrowTypes, Values
from rsc.ingest.readers.tables.declared import declared_field
from rsc.ingest.readers.tables.value_types import Seen, field_for, kind_of
from rsc.layers import nearest
from rsc.review.public_text import public_field_names
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field

Row = Mapping[str, Any]
MAX_FIELDS = 256  # that later records may bring in; objects used as maps have a field for every key
SAMPLE_ROWS = 1000  # rows looked at to begin with; more costs start-up time, fewer begin again more often

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")  # the store's alphabet for field names
_LETTER = re.compile(r"[A-Za-z0-9]")


@dataclass(frozen=True)
class SourceField:
    """A field as the store knows it, what it is called in the source, and what was seen in it.

    Without `seen` the options declare the type.
    """

    source_name: str
    field: Field
    seen: Seen | None = None

    @property
    def is_unscanned(self) -> bool:
        return self.field.kind == "string" and self.seen is not None and self.seen.is_all_numbers


@dataclass
class Table:
    """Columns of the rows that fitted, and the rows that did not (position -> reason)."""

    columns: dict[str, Values]
    bad: dict[int, str]
    notes: Counter[str] = field(default_factory=Counter)
    holds_infinity: bool = False
    """Whether a number is infinite, in a column of numbers or inside a list or an object."""

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
    sample = list(rows)
    names = list(dict.fromkeys(name for row in sample for name in row))
    if not names:
        raise DataError(
            "no field was found in the first records", hint="each record needs at least one field"
        )
    seen = {name: Seen() for name in chosen_names(names, options=options)}
    add_rows(seen, sample)
    return source_fields(seen, texts=text_names(seen), options=options)


def source_fields(
    seen: Mapping[str, Seen], *, texts: Sequence[str], options: ImportOptions
) -> tuple[SourceField, ...]:
    """The fields of what was seen, under their stored names; the options' types go first."""
    stored = stored_names(list(seen), texts=texts, options=options)
    return tuple(
        SourceField(name, field_for(stored[name], facts), facts)
        if name not in options.types
        else SourceField(name, declared_field(stored[name], options.types[name]))
        for name, facts in seen.items()
    )


def text_names(seen: Mapping[str, Seen]) -> list[str]:
    """Fields that hold text and nothing else."""
    return [name for name, facts in seen.items() if "text" in facts.kinds <= {"text", "null"}]


def add_rows(seen: Mapping[str, Seen], rows: Sequence[Row]) -> None:
    """Take the rows into account; a missing field is a missing value."""
    for name, facts in seen.items():
        facts.add(row.get(name) for row in rows)


def survey(
    fields: Sequence[SourceField], rows: Sequence[Row], *, seen: dict[str, Seen], all_fields: bool
) -> None:
    """Add to `seen` what the rows hold of the fields that are not declared, but for values that are bad.

    With `all_fields` a field that is new is taken in, up to MAX_FIELDS.
    """
    for item in fields:
        if item.seen is not None:
            allowed = item.seen.allowed
            values = [row.get(item.source_name) for row in rows]
            seen[item.source_name].add(v for v in values if allowed is None or kind_of(v) in allowed)
    known = {item.source_name for item in fields}
    for row in rows if all_fields else ():
        for name in row.keys() - known:
            if name in seen or len(seen) < MAX_FIELDS:
                seen.setdefault(name, Seen({"null"})).add([row[name]])


def stored_names(names: Sequence[str], *, texts: Sequence[str], options: ImportOptions) -> dict[str, str]:
    """What each source field is called in the store: the text to train on is `text`, the rest keep
    their names as far as the store's alphabet allows. A name of which that leaves no letter becomes
    `field_N`, N its place. Raises ConfigError when two would be called alike.
    """
    text = options.text_field or ("text" if "text" in names else texts[0] if len(texts) == 1 else None)
    public = public_field_names(names)
    stored = {
        name: "text" if name == text else _plain_name(public[name], place) for place, name in enumerate(names)
    }
    for new, count in Counter(stored.values()).items():
        if count > 1:
            twins = " and ".join(repr(name) for name in names if stored[name] == new)
            raise ConfigError(
                f"fields {twins} would both be stored as {new!r}", hint="choose one with --fields"
            )
    return stored


def to_table(
    rows: Sequence[Row], *, fields: Sequence[SourceField], all_fields: bool, is_surveyed: bool = False
) -> Table:
    """Columns of `rows`. With `all_fields` a field outside `fields` is noted, else it was not wanted.

    Raises NarrowTypes for a value that fits its field's kind and not its type, and for a new field before the
    source was surveyed.
    """
    bad: dict[int, str] = {}
    notes: Counter[str] = Counter()
    columns, holds_infinity = {}, False
    for item in fields:
        column = _column(rows, item, bad=bad, notes=notes)
        holds_infinity = holds_infinity or column.holds_infinity
        columns[item.field.name] = column.values
    if bad:
        keep = [index for index in range(len(rows)) if index not in bad]
        columns = {name: _take(values, keep) for name, values in columns.items()}
    if all_fields and sum(map(len, rows)) > len(rows) * len(fields) - _num_missing(rows, fields):
        known = {item.source_name for item in fields}
        new = Counter(name for row in rows for name in row.keys() - known)
        if new and not is_surveyed and len(fields) < MAX_FIELDS:
            raise NarrowTypes("a field is not in the first records")
        if new:
            notes["fields beyond the first 256: left out"] += new.total()
    return Table(columns=columns, bad=bad, notes=notes, holds_infinity=holds_infinity)


def chosen_names(names: Sequence[str], *, options: ImportOptions) -> list[str]:
    """The names that the options ask for. Raises ConfigError for one that is not there."""
    text = [options.text_field] if options.text_field else []
    wanted = [*(names if options.fields is None else options.fields), *text]
    for name, key in [*((name, "--fields") for name in wanted), *((n, "schema") for n in options.types)]:
        if name not in names:
            raise ConfigError(f"the source has no field {name!r}", hint=nearest(name, names, what=key))
    return list(dict.fromkeys(wanted))


def note_missing(item: Field, count: int, *, notes: Counter[str]) -> None:
    """Count values that are not there, by what is stored in their place."""
    if count:
        blank = "empty text" if item.kind == "string" else "NaN"
        blank = blank if item.missing is None else "the number that the schema gives for no value"
        notes[f"field {item.name!r} missing: stored as {blank}"] += count


def is_unicode(text: str) -> bool:
    """Whether it holds no surrogates, which UTF-8 cannot say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_name(name: str, place: int) -> str:
    if not _LETTER.search(name):
        return f"field_{place}"
    plain = _NOT_IN_NAMES.sub("_", name)
    return f"_{plain}"[:64] if plain[0] in "0123456789.-" else plain[:64]


class _Column(NamedTuple):
    values: Values
    holds_infinity: bool


def _column(rows: Sequence[Row], source: SourceField, *, bad: dict[int, str], notes: Counter[str]) -> _Column:
    item = source.field
    values = [row.get(source.source_name) for row in rows]
    types = set(map(type, values))
    if item.kind == "string" and types == {str} and not source.is_unscanned:
        return _Column(_whole_texts(values, item, bad=bad), holds_infinity=False)
    if types == {_PLAIN.get(item.dtype)} and item.kind == "tensor" and not item.shape:
        try:
            column = np.array(values, dtype=item.dtype)
            if item.missing is None or item.missing not in column:
                return _Column(column, _has_infinity(column))
        except OverflowError:
            pass
    checked = _checked(values, source, bad=bad, notes=notes)
    return _Column(checked, _has_infinity(checked))


def _has_infinity(column: Values) -> bool:
    if isinstance(column, list):
        return any("Infinity" in text for text in column)
    numbers = column.values if isinstance(column, Ragged) else np.asarray(column)
    return numbers.dtype.kind == "f" and bool(np.isinf(numbers).any())


_PLAIN: Mapping[str, type] = {"int64": int, "float64": float, "uint8": bool}
"""Python's type of values that numpy takes over as they are."""


def _checked(values: list[Any], source: SourceField, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    """The column value by value, after the proof that its type holds them all."""
    item = source.field
    if source.seen is None:
        return declared_column(values, item, bad=bad, notes=notes)
    allowed = source.seen.allowed
    for index, value in enumerate(values):
        if allowed is not None and kind_of(value) not in allowed:
            bad.setdefault(index, _misfit(item, value))
            values[index] = _BLANK
    fitting = Seen()
    fitting.add(value for value in values if value is not _BLANK)
    together = source.seen.merged(fitting)
    if field_for(item.name, together) != item or together.is_all_numbers != source.seen.is_all_numbers:
        raise NarrowTypes(
            f"field {item.name!r} holds values that do not fit {item.dtype}, the type of the first records",
            hint=f"declare it: schema.{source.source_name}=string",
        )
    if item.kind != "string":
        note_missing(item, sum(value is None for value in values), notes=notes)
        return _typed(values, item)
    note_missing(item, sum(value is None for value in values), notes=notes)
    return _whole_texts([_text(value) for value in values], item, bad=bad)


def _whole_texts(texts: list[Any], item: Field, *, bad: dict[int, str]) -> list[Any]:
    """The texts; a half of a UTF-16 pair, which JSON can say and UTF-8 cannot, makes its record bad."""
    if not all(map(str.isascii, texts)):
        for index, text in enumerate(texts):
            if not text.isascii() and not is_unicode(text):
                bad.setdefault(index, f"field {item.name!r}: half of a UTF-16 pair, which is no text")
    return texts


_BLANK = object()
"""In place of a value that makes its row bad."""


def _typed(values: Sequence[Any], item: Field) -> Values:
    """Values that were proven to fit. Blanks, whose rows are taken out, become zeros."""
    if item.kind == "tokens":
        rows = [np.array([] if v is _BLANK else v, dtype=item.storage) for v in values]
        return Ragged.from_list(rows, dtype=item.storage)
    blank: Any = np.zeros(item.shape, item.storage)
    missing = math.nan if item.missing is None else item.missing
    filled = [blank if v is _BLANK else missing if v is None else v for v in values]
    return np.array(filled, dtype=item.storage).reshape(len(values), *item.shape)


def declared_column(
    values: Sequence[Any], item: Field, *, bad: dict[int, str], notes: Counter[str]
) -> Values:
    """The column of a declared type: a value that it would change makes its row bad."""
    if item.kind == "string":
        note_missing(item, sum(value is None for value in values), notes=notes)
        return _whole_texts([_text(value) for value in values], item, bad=bad)
    convert: Callable[[Any], Any] = {"i": _whole, "u": _whole, "f": _number, "b": _truth}[item.storage.kind]
    column = np.zeros(len(values), dtype=item.storage)
    for index, value in enumerate(values):
        if value is None and (item.missing is not None or item.storage.kind == "f"):
            note_missing(item, 1, notes=notes)
            column[index] = np.nan if item.missing is None else item.missing
            continue
        try:
            exact = convert(value)
            column[index] = exact
            if exact == item.missing or (column[index] != exact and exact == exact):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            bad.setdefault(index, _misfit(item, value, is_declared=True))
    return column


def _whole(value: Any) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise TypeError
    return value


def _number(value: Any) -> int | float:
    if type(value) not in (int, float):
        raise TypeError
    return value  # type: ignore[no-any-return]


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _misfit(item: Field, value: Any, *, is_declared: bool = False) -> str:
    """The reason, which never quotes the value. A uint8 that nobody declared holds truths."""
    wanted = {"i": "whole number", "u": "whole number", "f": "number", "b": "true or false"}[
        item.storage.kind
    ]
    if item.shape or item.kind == "tokens":
        wanted = "list of numbers"
    elif item.dtype == "uint8" and not is_declared:
        wanted = "true or false"
    words = {"null": "nothing", "text": "text", "bool": "true or false", "nested": "a list or an object"}
    found = words.get(kind_of(value), "a number that does not fit")
    return f"field {item.name!r}: a {wanted} was expected, found {found}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or value is _BLANK else json.dumps(value, ensure_ascii=False)


def _take(values: Values, keep: list[int]) -> Values:
    if isinstance(values, Ragged):
        return Ragged.from_list([values[index] for index in keep], dtype=values.values.dtype)
    return values[keep] if isinstance(values, np.ndarray) else [values[index] for index in keep]


def _num_missing(rows: Sequence[Row], fields: Sequence[SourceField]) -> int:
    return sum(item.source_name not in row for item in fields for row in rows)

"""The values of one batch of an Arrow column, as its field stores them (arrow_types.py). Needs pyarrow."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rsc.errors import DataError
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.ingest.readers.source import NarrowTypes, Values
from rsc.ingest.readers.tables.arrow_types import ArrowColumn, import_pyarrow, plain_type
from rsc.ingest.readers.tables.infer_fields import declared_column, is_unicode, note_missing
from rsc.ingest.readers.tables.value_types import EXACT_IN_FLOAT64
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field

if TYPE_CHECKING:
    import pyarrow

_UNLABELLED = -1  # what Hugging Face datasets write for a sample of a hidden test set
_OUT_OF_RANGE = "<value out of range"  # what Arrow writes for a day or an instant that its calendar lacks


def column_values(
    values: pyarrow.Array, column: ArrowColumn, *, can_widen: bool, bad: dict[int, str], notes: Counter[str]
) -> Values:
    """One entry a row. Rows that cannot be stored are added to `bad` (row -> reason) and hold a blank.

    Raises NarrowTypes where the column, read as a whole, may have a wider field (`can_widen`).
    """
    item = column.field
    values = _plain(values)
    if column.codec is not None:
        return _media(values, column.codec, bad=bad, notes=notes)
    if column.is_declared and item.kind != "string":
        return declared_column(python_values(values, notes=notes), item, bad=bad, notes=notes)
    if item.kind == "string":
        return _strings(values, column, bad=bad, notes=notes)
    is_float = item.storage.kind == "f"
    if item.kind == "tensor" and not item.shape and (is_float or item.missing is not None):
        note_missing(item, values.null_count, notes=notes)
    elif values.null_count:
        if can_widen and item.kind == "tensor" and not item.shape:
            raise NarrowTypes(f"column {item.name!r} has missing values")
        for row in _rows_of(values.is_null()):
            bad.setdefault(row, f"field {item.name!r}: found nothing")
    if item.kind == "bytes":
        return [b"" if value is None else value for value in values.to_pylist()]
    if item.kind == "tokens" or item.shape:
        return _lists(values, item, bad=bad, notes=notes)
    return _numbers(values, item, can_widen=can_widen)


def python_values(values: pyarrow.Array, *, notes: Counter[str]) -> list[Any]:
    """JSON values of any column: every digit of times and decimals as text, bytes as base64."""
    arrow = import_pyarrow("pyarrow")
    values = _plain(values)
    types, kind = arrow.types, values.type
    if types.is_fixed_size_list(kind):
        values = values.cast(arrow.list_(kind.value_type))
    if types.is_struct(kind):
        return _structs(values, notes=notes)
    if types.is_list(values.type) or types.is_map(kind):
        return _python_lists(values, notes=notes)
    if types.is_binary(kind):
        notes["bytes inside lists or objects: stored as base64"] += len(values) - values.null_count
        return [None if value is None else base64.b64encode(value).decode() for value in values.to_pylist()]
    if types.is_temporal(kind) or types.is_decimal(kind):
        return _exact_texts(values)
    try:
        found: list[Any] = values.to_pylist()
        return found
    except UnicodeDecodeError:  # Arrow itself does not check that texts are UTF-8
        raw = values.cast("binary").to_pylist()
        return [None if value is None else value.decode(errors="surrogateescape") for value in raw]


def _plain(values: pyarrow.Array) -> pyarrow.Array:
    """The array that dictionaries, run ends, extensions and views stand for."""
    arrow = import_pyarrow("pyarrow")
    if isinstance(values, arrow.ChunkedArray):
        values = values.combine_chunks()
    if arrow.types.is_dictionary(values.type):
        return _plain(values.dictionary_decode())
    if arrow.types.is_run_end_encoded(values.type):
        return _plain(import_pyarrow("pyarrow.compute").run_end_decode(values))
    if isinstance(values.type, arrow.BaseExtensionType):
        return _plain(values.storage)
    plain = plain_type(values.type)
    return values if plain.equals(values.type) else values.cast(plain)


def _numbers(values: pyarrow.Array, item: Field, *, can_widen: bool) -> np.ndarray:
    """Single numbers. Raises NarrowTypes for whole ones that a field of floats does not hold."""
    arrow = import_pyarrow("pyarrow")
    if arrow.types.is_boolean(values.type):
        values = values.cast("uint8")
    if arrow.types.is_null(values.type):
        values = values.cast("int8")
    blank: Any = item.missing if item.missing is not None else np.nan if item.storage.kind == "f" else 0
    if values.null_count:
        low = values.type if item.missing is None else arrow.from_numpy_dtype(item.storage)
        values = values.cast("float64" if item.storage.kind == "f" else low) if low != values.type else values
        values = values.fill_null(arrow.scalar(blank, values.type)) if item.storage.kind != "f" else values
    if item.storage.kind == "f" and arrow.types.is_integer(values.type):
        bounds = import_pyarrow("pyarrow.compute").min_max(values).as_py()
        if max(-(bounds["min"] or 0), bounds["max"] or 0) > EXACT_IN_FLOAT64:
            raise NarrowTypes(f"column {item.name!r} has whole numbers above 2^53 beside fractions")
    if values.null_count:
        values = values.fill_null(np.nan)
    return np.asarray(values.to_numpy(zero_copy_only=False)).astype(item.storage)


def _lists(values: pyarrow.Array, item: Field, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    """Lists of numbers without a Python object for each number."""
    flat, lengths = _flattened(values, depth=max(1, len(item.shape)))
    is_float = item.storage.kind == "f"
    if flat.null_count:
        rows = [row for row, numbers in enumerate(values.to_pylist()) if _has_gap(numbers)]
        if is_float:
            note_missing(item, len(rows), notes=notes)
        else:
            bad.update(dict.fromkeys(rows, f"field {item.name!r}: a number of its list is missing"))
        flat = flat.fill_null(np.nan if is_float else 0)
    numbers = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=item.storage)
    if item.shape:
        dense = np.zeros((len(values), *item.shape), item.storage)
        try:
            dense[values.is_valid().to_numpy(zero_copy_only=False)] = numbers.reshape(-1, *item.shape)
        except ValueError:  # a list inside is null, which leaves no place for its numbers
            raise DataError(
                f"column {item.name!r} lacks lists inside its lists",
                hint=f"schema.{item.name}=string stores JSON",
            ) from None
        return dense
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Ragged(values=numbers, offsets=offsets)


def _flattened(values: pyarrow.Array, *, depth: int) -> tuple[pyarrow.Array, np.ndarray]:
    """The numbers of lists that are there, and how many each outer list has; 0 for a null."""
    compute = import_pyarrow("pyarrow.compute")
    lengths = compute.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    for _ in range(depth):
        if hasattr(values, "flatten") and import_pyarrow("pyarrow").types.is_nested(values.type):
            values = _plain(values.flatten())
    return values, lengths


def _has_gap(numbers: Any) -> bool:
    if not isinstance(numbers, list):
        return False
    return any(number is None or _has_gap(number) for number in numbers)


def _strings(
    values: pyarrow.Array, column: ArrowColumn, *, bad: dict[int, str], notes: Counter[str]
) -> list[str]:
    if column.class_names is not None:
        found = _class_names(values.to_pylist(), column, names=column.class_names, bad=bad)
    else:
        found = python_values(values, notes=notes)
    note_missing(column.field, sum(value is None for value in found), notes=notes)
    texts = [_text(value) for value in found]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for row, text in enumerate(texts):
            if not is_unicode(text):
                bad.setdefault(row, f"field {column.field.name!r}: not UTF-8")
                texts[row] = ""
    return texts


def _class_names(
    numbers: Sequence[int | None], column: ArrowColumn, *, names: Sequence[str], bad: dict[int, str]
) -> list[str | None]:
    labels: list[str | None] = []
    for row, number in enumerate(numbers):
        has_name = isinstance(number, int) and 0 <= number < len(names)
        labels.append(names[number] if number is not None and has_name else None)
        if not has_name and number not in (None, _UNLABELLED):
            bad.setdefault(row, f"field {column.field.name!r}: a class number without a name")
            labels[-1] = ""
    return labels


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _exact_texts(values: pyarrow.Array) -> list[str | None]:
    """Times, days and decimals as text that keeps every digit."""
    arrow = import_pyarrow("pyarrow")
    types, kind = arrow.types, values.type
    if types.is_interval(kind):
        return [None if value is None else json.dumps(list(value)) for value in values.to_pylist()]
    if types.is_duration(kind):
        return [None if v is None else f"{v} {kind.unit}" for v in values.cast("int64").to_pylist()]
    is_zoned = types.is_timestamp(kind) and kind.tz is not None
    if types.is_date64(kind):
        days = values.cast("int64").to_numpy(zero_copy_only=False)
        if np.any(np.nan_to_num(days.astype(float)) % 86_400_000):
            values = values.cast(arrow.timestamp("ms"))
    elif is_zoned:
        values = values.cast(arrow.timestamp(kind.unit))
    found = values.cast(arrow.string()).to_pylist()
    if any(text is not None and text.startswith(_OUT_OF_RANGE) for text in found):
        unit = getattr(kind, "unit", "ms" if types.is_date64(kind) else "days")
        counts = values.cast("int32" if types.is_date32(kind) else "int64").to_pylist()
        return [
            f"{count} {unit} after 1970-01-01"
            if text is not None and text.startswith(_OUT_OF_RANGE)
            else text
            for text, count in zip(found, counts, strict=True)
        ]
    return [text if text is None or not is_zoned else f"{text}Z" for text in found]


def _structs(values: pyarrow.Array, *, notes: Counter[str]) -> list[Any]:
    """Objects; lists of [name, value] where two members have one name."""
    names = [values.type.field(index).name for index in range(values.type.num_fields)]
    members = [python_values(values.field(index), notes=notes) for index in range(len(names))]
    is_there = values.is_valid().to_pylist()
    rows = zip(*members, strict=True) if members else iter([()] * len(values))
    objects = (list(zip(names, row, strict=True)) for row in rows)
    has_twins = len(set(names)) < len(names)
    return [
        None if not there else pairs if has_twins else dict(pairs)
        for there, pairs in zip(is_there, objects, strict=True)
    ]


def _python_lists(values: pyarrow.Array, *, notes: Counter[str]) -> list[Any]:
    """Lists, and maps as lists of [key, value]."""
    offsets = values.offsets.to_pylist()
    first, last = offsets[0] if offsets else 0, offsets[-1] if offsets else 0
    if import_pyarrow("pyarrow").types.is_map(values.type):
        keys = python_values(values.keys.slice(first, last - first), notes=notes)
        items = python_values(values.items.slice(first, last - first), notes=notes)
        inner: list[Any] = [list(pair) for pair in zip(keys, items, strict=True)]
    else:
        inner = python_values(values.values.slice(first, last - first), notes=notes)
    is_there = values.is_valid().to_pylist()
    return [
        inner[start - first : stop - first] if there else None
        for there, start, stop in zip(is_there, offsets, offsets[1:], strict=False)
    ]


def _rows_of(mask: pyarrow.Array) -> list[int]:
    rows: list[int] = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
    return rows


def _media(values: pyarrow.Array, codec: MediaCodec, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    """Files, or their pixels or samples; a row that does not decode is bad and holds a blank."""
    blank: Any = b""
    item = codec.field("blank")
    if item.kind != "bytes":
        blank = np.zeros(item.shape or (0,), item.storage)
    found = []
    for row, value in enumerate(values.to_pylist()):
        try:
            if value is None or value["bytes"] is None:
                raise DataError(f"no {codec.medium} bytes in it")
            found.append(codec.value(value["bytes"], notes=notes))
        except DataError as error:
            bad.setdefault(row, error.message)
            found.append(blank)
    return found

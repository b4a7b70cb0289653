"""Which field an Arrow column becomes, and the field's values of one batch. Needs pyarrow.

| Arrow type                          | field                                           |
|-------------------------------------|-------------------------------------------------|
| string                              | string; null becomes "" and is counted          |
| integers, floats, bool              | number; a null makes the row bad, or NaN        |
| binary                              | bytes                                           |
| struct of bytes and path (HF image) | image or audio bytes                            |
| fixed size list of numbers          | tensor of that size                             |
| list of numbers                     | tokens                                          |
| everything else                     | string holding its JSON                         |

Numbers that stand for class names (HF ClassLabel) are stored as the names; -1, which says that there is
no label, is a missing text. A null inside a list makes the row bad, or is NaN and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.extras import install_command
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.ingest.readers.source import Values
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field

if TYPE_CHECKING:
    import pyarrow

_UNLABELLED = -1  # what Hugging Face datasets write for a sample of a hidden test set


@dataclass(frozen=True)
class ArrowColumn:
    source_name: str
    field: Field
    class_names: Sequence[str] | None = None
    codec: MediaCodec | None = None


def columns_of(schema: pyarrow.Schema, *, options: ImportOptions) -> list[ArrowColumn]:
    """The columns that the options ask for. Raises ConfigError for one that is not there."""
    names = chosen_names(schema.names, options=options)
    texts = [name for name in names if _is_text(schema.field(name).type)]
    stored = stored_names(names, texts=texts, options=options)
    features = _hf_features(schema)
    return [_column(schema.field(name), stored[name], features.get(name, {}), options) for name in names]


def column_values(
    values: pyarrow.Array, column: ArrowColumn, *, bad: dict[int, str], notes: Counter[str]
) -> Values:
    """One entry a row. Rows that cannot be stored are added to `bad` (row -> reason) and hold a blank."""
    item = column.field
    if column.codec is not None:
        return _media(values, column.codec, bad=bad, notes=notes)
    if item.kind == "string":
        return _strings(values, column, bad=bad, notes=notes)
    is_float = item.dtype.startswith("float")
    if item.kind == "tensor" and not item.shape and is_float:
        _note_missing(item, values.null_count, notes=notes)
    else:
        for row in _rows_of(values.is_null()) if values.null_count else ():
            bad.setdefault(row, f"field {item.name!r}: found nothing")
    if item.kind == "bytes":
        return [b"" if value is None else value for value in values.to_pylist()]
    if item.kind == "tokens" or item.shape:
        return _lists(values, item, bad=bad, notes=notes)
    if item.dtype == "uint8":
        values = values.cast("uint8")  # booleans too
    filled = values.fill_null(np.nan if is_float else 0) if values.null_count else values
    return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(item.storage)


def import_pyarrow(module: str) -> Any:
    """Raises ConfigError with the package to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError("Parquet and Arrow files need pyarrow", hint=install_command("parquet")) from None


def _hf_features(schema: pyarrow.Schema) -> dict[str, Any]:
    """What Hugging Face datasets wrote about its columns into the schema's metadata."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    features: dict[str, Any] = json.loads(metadata).get("info", {}).get("features", {})
    return features


def _column(source: pyarrow.Field, name: str, feature: dict[str, Any], options: ImportOptions) -> ArrowColumn:
    types, kind = import_pyarrow("pyarrow").types, source.type
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        return ArrowColumn(source.name, Field(name, "string"), class_names=feature["names"])
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        codec = MediaCodec("audio" if feature.get("_type") == "Audio" else "image", options)
        return ArrowColumn(source.name, codec.field(name), codec=codec)
    if types.is_boolean(kind):
        return ArrowColumn(source.name, Field(name, "tensor", "uint8"))
    if _is_number(kind):
        return ArrowColumn(source.name, Field(name, "tensor", _dtype(kind)))
    if types.is_binary(kind) or types.is_large_binary(kind):
        return ArrowColumn(source.name, Field(name, "bytes"))
    if types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        return ArrowColumn(source.name, Field(name, "tensor", _dtype(kind.value_type), (kind.list_size,)))
    if (types.is_list(kind) or types.is_large_list(kind)) and _is_number(kind.value_type):
        return ArrowColumn(source.name, Field(name, "tokens", _dtype(kind.value_type)))
    return ArrowColumn(source.name, Field(name, "string"))


def _is_text(kind: Any) -> bool:
    types = import_pyarrow("pyarrow").types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_number(kind: Any) -> bool:
    types = import_pyarrow("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _dtype(kind: Any) -> str:
    return str(np.dtype(kind.to_pandas_dtype()).name)


def _lists(values: pyarrow.Array, item: Field, *, bad: dict[int, str], notes: Counter[str]) -> Values:
    """Lists of numbers without a Python object for each number."""
    flat = values.flatten()  # of the lists that are there
    is_float = item.dtype.startswith("float")
    if flat.null_count:
        rows = [row for row, numbers in enumerate(values.to_pylist()) if numbers and None in numbers]
        if is_float:
            _note_missing(item, len(rows), notes=notes)
        else:
            bad.update(dict.fromkeys(rows, f"field {item.name!r}: a number of its list is missing"))
        flat = flat.fill_null(np.nan if is_float else 0)
    numbers = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=item.storage)
    compute = import_pyarrow("pyarrow.compute")
    if item.shape:
        dense = np.zeros((len(values), *item.shape), item.storage)
        dense[values.is_valid().to_numpy(zero_copy_only=False)] = numbers.reshape(-1, *item.shape)
        return dense
    offsets = np.zeros(len(values) + 1, np.int64)
    lengths = compute.list_value_length(values).fill_null(0)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
    return Ragged(values=numbers, offsets=offsets)


def _strings(
    values: pyarrow.Array, column: ArrowColumn, *, bad: dict[int, str], notes: Counter[str]
) -> list[str]:
    found = values.to_pylist()
    if column.class_names is not None:
        found = _class_names(found, column, names=column.class_names, bad=bad)
    _note_missing(column.field, sum(value is None for value in found), notes=notes)
    return [_text(value) for value in found]


def _class_names(
    numbers: Sequence[int | None], column: ArrowColumn, *, names: Sequence[str], bad: dict[int, str]
) -> list[str | None]:
    labels: list[str | None] = []
    for row, number in enumerate(numbers):
        has_name = number is not None and 0 <= number < len(names)
        labels.append(names[number] if number is not None and has_name else None)
        if not has_name and number not in (None, _UNLABELLED):
            bad.setdefault(row, f"field {column.field.name!r}: a class number without a name")
            labels[-1] = ""
    return labels


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _note_missing(item: Field, count: int, *, notes: Counter[str]) -> None:
    if count:
        blank = "empty text" if item.kind == "string" else "NaN"
        notes[f"field {item.name!r} missing: stored as {blank}"] += count


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

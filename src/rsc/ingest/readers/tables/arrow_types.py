"""Which field an Arrow column becomes. Needs pyarrow.

| Arrow type                               | field                                                        |
|------------------------------------------|--------------------------------------------------------------|
| string                                   | string                                                       |
| whole numbers, floats                    | number of the same width                                     |
| whole numbers, some missing              | int64 or uint64 with `missing`, else string of their digits  |
| bool                                     | uint8; 255 for missing                                       |
| binary of any kind                       | bytes                                                        |
| date, time, timestamp, duration, decimal | string, all digits kept; a time zone's instants in UTC (`Z`) |
| struct of bytes and path (HF image)      | image or audio bytes                                         |
| fixed size lists of numbers, also nested | tensor of that shape                                         |
| list of numbers                          | tokens                                                       |
| other lists of numbers                   | string holding their JSON, not scanned                       |
| everything else                          | string holding its JSON; bytes inside as base64              |

Dictionaries, run-end encodings, views and extension types are what they hold. Numbers that stand for class
names (HF ClassLabel) are stored as the names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.extras import install_command
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.ingest.readers.tables.declared import declared_field
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.ingest.readers.tables.value_types import EXACT_IN_FLOAT64, MISSING, whole_field
from rsc.store.format.schema import Field

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class WholeFacts:
    """What a survey found in a column of whole numbers or truths."""

    has_missing: bool = False
    low: int = 0
    high: int = 0

    def merged(self, other: WholeFacts) -> WholeFacts:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return WholeFacts(self.has_missing or other.has_missing, low, high)


@dataclass(frozen=True)
class ArrowColumn:
    """A column to take, and how its values are read."""

    source_name: str
    field: Field
    class_names: Sequence[str] | None = None
    codec: MediaCodec | None = None
    is_declared: bool = False
    is_numeric_text: bool = False


def columns_of(
    schemas: Mapping[str, pyarrow.Schema],
    *,
    constants: Collection[str],
    known: Mapping[str, WholeFacts] | None,
    options: ImportOptions,
) -> list[ArrowColumn]:
    """The columns that the options ask for, of tables in files (name -> schema) with the same columns.

    `constants` are those that stand in the paths of the files: never the text to train on by themselves.

    Raises DataError for columns that differ, ConfigError for a chosen one that is not there.
    """
    first_name, first = next(iter(schemas.items()))
    for name, schema in schemas.items():
        twice = next((column for column in schema.names if schema.names.count(column) > 1), None)
        if twice is not None:
            raise DataError(f"{name} has two columns called {twice!r}", hint="rename one of them")
        if set(schema.names) != set(first.names):
            odd = sorted(set(schema.names) ^ set(first.names))
            raise DataError(
                f"{name} has other columns than {first_name}: only one has {', '.join(map(repr, odd[:5]))}",
                hint="import it from a folder of its own, or choose columns that all have with --fields",
            )
    names = chosen_names(first.names, options=options)
    types = {name: [plain_type(schema.field(name).type) for schema in schemas.values()] for name in names}
    texts = [name for name in names if all(map(is_text, types[name])) and name not in constants]
    stored = stored_names(names, texts=texts, options=options)
    features = _hf_features(first)
    return [
        _column(name, stored[name], types[name], features.get(name), known=known, options=options)
        for name in names
    ]


def plain_type(kind: Any) -> Any:
    """The type that dictionaries, run ends, extensions and views stand for."""
    arrow = import_pyarrow("pyarrow")
    types = arrow.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, arrow.BaseExtensionType):
        if kind.extension_name == "arrow.fixed_shape_tensor":
            return kind
        return plain_type(kind.storage_type)
    if types.is_string_view(kind) or types.is_large_string(kind):
        return arrow.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return arrow.binary()
    if types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        return arrow.list_(kind.value_type)
    return kind


def is_text(kind: Any) -> bool:
    return bool(import_pyarrow("pyarrow").types.is_string(kind))


def is_number(kind: Any) -> bool:
    types = import_pyarrow("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def is_media(kind: Any) -> bool:
    """The struct in which Hugging Face keeps a picture or a sound."""
    arrow = import_pyarrow("pyarrow")
    if not arrow.types.is_struct(kind):
        return False
    names = {kind.field(index).name for index in range(kind.num_fields)}
    if not {"bytes"} < names <= {"bytes", "path", "sampling_rate"} or len(names) < kind.num_fields:
        return False
    return bool(plain_type(kind.field("bytes").type).equals(arrow.binary()))


def import_pyarrow(module: str) -> Any:
    """Raises ConfigError with the package to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError("Parquet and Arrow files need pyarrow", hint=install_command("parquet")) from None


def _hf_features(schema: pyarrow.Schema) -> dict[str, Any]:
    """What Hugging Face datasets wrote about its columns into the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: about for name, about in features.items() if isinstance(about, dict)}


def _column(
    source_name: str,
    name: str,
    types: Sequence[Any],
    feature: Mapping[str, Any] | None,
    *,
    known: Mapping[str, WholeFacts] | None,
    options: ImportOptions,
) -> ArrowColumn:
    feature = feature or {}
    if source_name in options.types:
        return ArrowColumn(source_name, declared_field(name, options.types[source_name]), is_declared=True)
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        return ArrowColumn(source_name, Field(name, "string"), class_names=feature["names"])
    if all(map(is_media, types)):
        codec = MediaCodec("audio" if feature.get("_type") == "Audio" else "image", options)
        return ArrowColumn(source_name, codec.field(name), codec=codec)
    fields = [_field(name, kind) for kind in types if not import_pyarrow("pyarrow").types.is_null(kind)]
    joined = _joined(fields, name=name, source_name=source_name)
    if known is not None and source_name in known:
        joined = _widened(joined, known[source_name])
    numeric = joined.kind == "string" and all(map(_is_list_of_numbers, types))
    return ArrowColumn(source_name, joined, is_numeric_text=numeric)


def _field(name: str, kind: Any) -> Field:
    arrow = import_pyarrow("pyarrow")
    types = arrow.types
    if types.is_boolean(kind):
        return Field(name, "tensor", "uint8")
    if is_number(kind):
        return Field(name, "tensor", _dtype(kind))
    if types.is_binary(kind):
        return Field(name, "bytes")
    if types.is_list(kind) and is_number(plain_type(kind.value_type)):
        return Field(name, "tokens", _dtype(kind.value_type))
    shape: list[int] = []
    if isinstance(kind, arrow.BaseExtensionType):  # a fixed shape tensor
        shape, kind = list(kind.shape), kind.value_type
    while types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    if shape and all(shape) and is_number(kind):
        return Field(name, "tensor", _dtype(kind), tuple(shape))
    return Field(name, "string")


def _joined(fields: Sequence[Field], *, name: str, source_name: str) -> Field:
    """One field for the types that a column has in several files. Raises DataError where there is none."""
    different = list(dict.fromkeys(fields)) or [Field(name, "string")]
    first = different[0]
    if len(different) == 1:
        return first
    if all(item.kind == first.kind and item.shape == first.shape for item in different):
        dtypes = {item.storage for item in different}
        kinds = {dtype.kind for dtype in dtypes}
        joined = np.result_type(*dtypes)
        if first.kind != "string" and (kinds in ({"i"}, {"u"}, {"f"}) or joined.kind in "iu"):
            return replace(first, dtype=joined.name)
        if first.kind == "tensor" and not first.shape:  # whole numbers beside others: see `_widened`
            return replace(first, dtype="float64")
    told = " and ".join(f"{item.kind} {item.dtype} {list(item.shape)}" for item in different[:2])
    raise DataError(
        f"column {source_name!r} has other types in other files: {told}",
        hint=f"say which with schema.{source_name}=string, or import the files apart",
    )


def _widened(item: Field, facts: WholeFacts) -> Field:
    """The field for what the whole column was found to hold."""
    if item.kind != "tensor" or item.shape:
        return item
    if item.storage.kind == "f":
        is_exact = max(-facts.low, facts.high) <= EXACT_IN_FLOAT64
        return item if is_exact else Field(item.name, "string")
    if not facts.has_missing:
        return item
    if facts.low == 0 and facts.high <= 1 and item.dtype == "uint8":
        return replace(item, missing=MISSING["uint8"])
    return whole_field(item.name, low=facts.low, high=facts.high, is_nullable=True)


def _is_list_of_numbers(kind: Any) -> bool:
    types = import_pyarrow("pyarrow").types
    kind = plain_type(kind)
    if not (types.is_list(kind) or types.is_fixed_size_list(kind)):
        return False
    return is_number(plain_type(kind.value_type)) or _is_list_of_numbers(kind.value_type)


def _dtype(kind: Any) -> str:
    return str(np.dtype(plain_type(kind).to_pandas_dtype()).name)

"""Types that the options declare: `schema.FIELD = "type"`."""

from __future__ import annotations

from rsc.ingest.config import DeclaredType
from rsc.ingest.readers.tables.value_types import MISSING
from rsc.store.format.schema import Field


def declared_field(name: str, declared: DeclaredType) -> Field:
    """The field of a declared type. `int64?` takes missing values, marked by the end of the range."""
    dtype = declared.removesuffix("?")
    if dtype == "string":
        return Field(name, "string")
    return Field(name, "tensor", dtype, missing=MISSING[dtype] if declared.endswith("?") else None)

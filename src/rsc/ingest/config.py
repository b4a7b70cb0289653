"""What can be said about an import. The command line and the Python API fill the same model."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rsc.layers import FrozenModel

Format = Literal[
    "auto",
    "jsonl",
    "csv",
    "parquet",
    "arrow",
    "text",
    "images",
    "audio",
    "webdataset",
    "mds",
    "hf",
    "python-docs",
]

DeclaredType = Literal[
    "string", "bool", "int8", "int16", "int32", "int64", "int64?", "uint8", "uint16", "uint32", "uint64",
    "uint64?", "float64",
]  # fmt: skip
"""Types that a field can be declared to have. With `?` values may be missing."""


def _known_encoding(name: str) -> str:
    try:
        info = codecs.lookup(name)
        if "\n".encode(name) != b"\n":
            raise LookupError
    except (LookupError, UnicodeError):
        raise ValueError(f"{name!r} is not an encoding whose line ends are one byte") from None
    return info.name


class ImportOptions(FrozenModel):
    """Everything that decides what an import writes, but for the source, its name and the policy."""

    format: Format = "auto"
    """How the source is written; `auto` looks at names and first bytes."""

    text_field: str | None = None
    """Which field is the text to train on; stored as `text`. Default: `text`, or the only text field."""

    fields: tuple[str, ...] | None = None
    """Take only these fields; the rest never leaves the source. Default: all of them."""

    header: Literal["auto", "first", "none"] | tuple[str, ...] = "auto"
    """Names of the columns of CSV: its first line (`first`; `auto` refuses one that looks like a record),
    `none` for column_1, column_2, ..., or a list of names for a table without a header."""

    types: dict[str, DeclaredType] = Field(default_factory=dict)
    """Types of fields, by their names in the source: `schema.FIELD=type` on the command line. A value that
    the type would change makes its record bad. Other fields get a type that holds all their values."""

    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8"
    """Encoding of text sources: any that keeps a line end as one byte, so not UTF-16."""

    bad_encoding: Literal["stop", "quarantine"] = "stop"
    """What a line in another encoding does: stops the import, or goes to quarantine."""

    records: Literal["auto", "blocks", "lines", "files"] = "auto"
    """What a record of plain text is: paragraphs of together `block_chars`, a line, or a whole file.
    `auto` takes blocks for one file and files for a folder."""

    block_chars: Annotated[int, Field(ge=64, le=1 << 20)] = 4096
    """Characters after which a block of plain text ends at the next blank line, else at the next line end."""

    tokenizer: str | None = None
    """Path of a tokenizer.json: `text` is stored as its ids."""

    vocabulary: Annotated[int, Field(ge=257, le=1 << 20)] | None = None
    """Train a byte-level BPE of so many ids on the way in and write it to `tokenizer`, unless it is there."""

    image_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*(x[1-9][0-9]*)?$")] | None = None
    """Decode pictures to uint8 [height, width, 3] of this size (`32`, or `height x width` as `224x160`).
    Default: the files as given, without their metadata."""

    sample_rate: Annotated[int, Field(ge=1000, le=384_000)] | None = None
    """Decode sound to int16 samples, one channel, at this rate; files at other rates are bad records.
    Default: the files as given, without their tags."""

    label_pattern: str | None = None
    """Fields in file names, such as `{label}_{speaker}_{index}`; without it folders are the labels."""

    test_where: Annotated[str, Field(pattern=r"^[^=]+=.+$")] | None = None
    """Which records are split `test`, by a field of the pattern: `index=0,1,2,3,4` or `speaker=theo`."""

    where: dict[str, str] = Field(default_factory=dict)
    """Take only records whose field passes, by the field's name: `where.lang=en,de` (one of these), `!=en`,
    `>=0.5`. Fields of text, numbers and truths can be judged; a missing number never passes."""

    sample: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Take this share of the records, drawn by a hash of what each one says: the same records each time."""

    sample_seed: int = 0
    """Another number draws other records."""

    dedup: tuple[str, ...] | None = None
    """Leave out records whose values of these fields are exactly those of an earlier record (`*`: of all).
    Reads the source twice."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Take so many records and stop: the first ones that the settings above let through. Those that the gate
    drops count. Reads their part of the source twice."""

    scan: bool = True
    """Look for personal data in text. Off only with a policy that names another safeguard, and said so."""

    plain_numbers: tuple[str, ...] = ()
    """Fields of numbers that look like identifiers (telephones, cards, positions) and are to be taken as they
    are: an import stops at such a field otherwise."""

    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of records kept out of training as split `validation`, by a keyed hash of what they say.
    Default: a tenth, or nothing where the source has splits of its own."""

    part_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 30)] | None = None
    """Source bytes one process takes at a time: what a kill can lose. Default: by the source's size."""

    @model_validator(mode="after")
    def _trains_into_a_file(self) -> ImportOptions:
        if self.vocabulary is not None and self.tokenizer is None:
            raise ValueError("vocabulary needs tokenizer=PATH, where the trained tokenizer is written")
        return self

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width, channels of decoded pictures."""
        if self.image_size is None:
            return None
        height, _, width = self.image_size.partition("x")
        return int(height), int(width or height), 3

    @field_validator("image_size", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("dedup", "plain_numbers", mode="before")
    @classmethod
    def _one_too(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("fields")
    @classmethod
    def _not_empty(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and not names:
            raise ValueError("an import needs at least one field")
        return names

"""Names of the columns of a delimited table: from its first line, from the options, or numbered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.review.public_text import is_public

_LONGEST_NAME = 64  # of a field of the store; a longer cell is a sentence
_VALUE = re.compile(r"[-+]?[0-9]{5,}|[-+]?[0-9]+[.,:][0-9.,:]+|[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}\b.*")
"""A number or a date; years stay possible as names."""


def has_header_line(options: ImportOptions) -> bool:
    """Whether the first line is no record."""
    return options.header in ("auto", "first")


def column_names(first: Sequence[str], *, file_name: str, options: ImportOptions) -> tuple[str, ...]:
    """Names for as many columns as the first line has cells.

    Raises DataError when two are equal, and under `header=auto` when the line looks like a record: as names,
    its values would stand in the open. Raises ConfigError where the options name another number of columns.
    """
    if first[0].lower().startswith("sep=") and not any(first[1:]):
        raise DataError(
            f"the first line of {file_name} names the separator, as spreadsheets write it, and no columns",
            hint="remove that line; the separator is found without it",
        )
    if options.header == "none":
        return tuple(f"column_{number}" for number in range(1, len(first) + 1))
    if isinstance(options.header, tuple):
        if len(options.header) != len(first):
            raise ConfigError(
                f"header names {len(options.header)} columns, and {file_name} has {len(first)}",
                hint="name every column, in order",
            )
        return options.header
    names = tuple(name.strip() or f"column_{index}" for index, name in enumerate(first))
    _require_names(names, file_name=file_name, is_sure=options.header == "first")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{file_name} has two columns called {twice[0]!r}", hint="rename one of them")
    return names


def _require_names(names: Sequence[str], *, file_name: str, is_sure: bool) -> None:
    for number, name in enumerate(names, start=1):
        what = None
        if not is_public(name):
            what = "holds personal data"
        elif _VALUE.fullmatch(name):
            what = "is a number or a date"
        elif len(name) > _LONGEST_NAME:
            what = f"has {len(name)} characters"
        if what is not None and not is_sure:
            raise looks_like_record(file_name, f"cell {number} {what}")


def looks_like_record(file_name: str, why: str) -> DataError:
    return DataError(
        f"the first line of {file_name} looks like a record, not like a header: {why}",
        hint='for a table without a header: header=none, or header=\'["name", "city"]\'; '
        "header=first takes the line as names all the same",
    )

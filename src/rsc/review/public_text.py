"""Words that are stored or shown in the open: notes, reasons, file names, field names, error messages.

They come from a source as much as its records do, so they pass the same scanner. What it finds is replaced
by its type; control characters are escaped, and a long text is cut, since a value is no name.

Not covered: what the scanner does not look for (review.findings), names of persons above all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from rsc.errors import RscError
from rsc.review.scanner.scanner import Scanner

_MOST_CHARACTERS = 2000
WITHHELD = "withheld_"
"""What the name of a field begins with whose own name holds personal data."""


@lru_cache(maxsize=4096)
def public_text(text: str) -> str:
    """The text with `[EMAIL]` and the like in place of personal data."""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}... ({len(text)} characters)"
    text = "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )
    pieces: list[str] = []
    done = 0
    for finding in _scanner().scan(text):
        pieces += (text[done : finding.start], f"[{finding.type.upper()}]")
        done = finding.end
    return "".join([*pieces, text[done:]])


def is_public(text: str) -> bool:
    """Whether nothing in it has to be replaced."""
    return public_text(text) == text


def public_value(value: Any) -> Any:
    """`public_text` of every text in a JSON value, keys too."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, dict):
        return {public_value(key): public_value(item) for key, item in value.items()}
    return [public_value(item) for item in value] if isinstance(value, list | tuple) else value


def public_field_names(names: Iterable[str]) -> dict[str, str]:
    """Names of fields as they may be stored; `withheld_1`, ... for those that hold personal data."""
    withheld = [name for name in names if not is_public(name)]
    codes = {name: f"{WITHHELD}{number}" for number, name in enumerate(withheld, start=1)}
    return {name: codes.get(name, name) for name in names}


@contextmanager
def public_errors() -> Iterator[None]:
    """Errors raised inside quote nothing that is personal: of a header, a path or a value."""
    try:
        yield
    except RscError as error:
        error.message = public_text(error.message)
        error.hint = public_text(error.hint) if error.hint else error.hint
        error.args = (error.message,)
        raise


@cache
def _scanner() -> Scanner:
    return Scanner("re")  # ready at once, and as fast as any for a line

"""TOML from files that somebody else may have written: recipes, policies, settings, values of a command."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from rsc.errors import ConfigError

MOST_BYTES = 1 << 20  # the longest recipe has 4 KiB
_DEEPEST = 32  # ours nest four deep; what walks the values does so by recursion

_LONG_KEY = re.compile(rf"(?:[A-Za-z0-9_\"'-]{{1,64}}[ \t]*\.[ \t]*){{{_DEEPEST}}}")


def parse_toml(text: str, *, name: str, hint: str | None = None) -> dict[str, Any]:
    """Raises ConfigError for what is not TOML, too long, or nested too deeply."""
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{name} has {len(text):,} characters; no settings are so long", hint=hint)
    if _LONG_KEY.search(text):  # tomllib takes time by the square of their parts
        raise ConfigError(f"{name} has a key of more than {_DEEPEST} parts", hint=hint)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a date that is none is a bare ValueError
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{name} is not TOML: {said}", hint=hint) from None
    level: list[Any] = [values]
    for _ in range(_DEEPEST):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return values
    raise ConfigError(f"{name} nests tables or lists more than {_DEEPEST} deep", hint=hint)


def parse_value(text: str) -> Any:
    """A TOML value; a bare word is a string, so that `data.name=posts` needs no quotes in a shell."""
    try:
        return parse_toml(f"value = {text}", name="the value")["value"]
    except ConfigError:
        return text


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []

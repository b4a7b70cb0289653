"""Pre-filters: where can a rule's match start? They may answer too much, never too little.

- `re`: everywhere. The definition of the truth, and always there.
- `re2`: google-re2's Set says which rules' triggers occur in a slice of the text.
- `hyperscan`: says at which byte a trigger ends, so that only a few characters are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from rsc.errors import ConfigError
from rsc.review.rules.rule import Rule

Window = tuple[Rule, int, int]  # the rule may start in [from, to) of the folded text


class Prefilter(Protocol):
    name: str

    def windows(self, text: str) -> Iterator[Window]:
        """Windows over folded text that together hold every position where a rule matches."""
        ...


class RePrefilter:
    name = "re"

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def windows(self, text: str) -> Iterator[Window]:
        for rule in self._rules:
            yield rule, 0, len(text)


def choose_engine(name: str, *, rules: Sequence[Rule]) -> Prefilter:
    """`auto` takes the fastest that is installed. Raises ConfigError for an engine that is not."""
    if name in ("auto", "re"):
        return RePrefilter(rules)
    raise ConfigError(f"scan engine {name!r} is unknown", hint="use one of: auto hyperscan re2 re")

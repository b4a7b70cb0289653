"""What a rule is. Patterns are ASCII over the folded text (normalise.py), one byte a character."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[str, "re.Match[str]"], bool]


def always(text: str, match: re.Match[str]) -> bool:
    """For rules whose pattern alone is the proof."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One way a type of personal data is written.

    A finding starts at every position where `exact` matches and `check(text, match)` holds; its span is
    the group `v` if the pattern has one, else the whole match. `trigger` is in the subset that RE2 and
    Hyperscan share (no look-around, no back references) and must match somewhere inside each exact
    match so that its end lies at most `lead` characters after the start: it only saves work.
    `strength` settles overlaps, smaller wins: 0 checksum, 1 unmistakable form, 2 context, 3 shape.
    """

    name: str
    type: str
    trigger: str
    lead: int
    exact: re.Pattern[str]
    check: Check = always
    strength: int = 3
    reach: int = 128  # a search for a start may read this far beyond the last possible start


def near(text: str, start: int, *, words: re.Pattern[str], distance: int = 48) -> re.Match[str] | None:
    """The last context word that begins within `distance` characters before `start`, if any."""
    found = None
    for found in words.finditer(text, max(0, start - distance), start):
        pass
    return found


def digits_of(text: str) -> str:
    return "".join(filter(str.isdigit, text))

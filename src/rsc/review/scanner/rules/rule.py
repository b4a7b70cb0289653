"""What a rule is. Patterns are ASCII over the folded text (normalise.py), one byte a character."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[str, "re.Match[str]"], bool]


BEHIND = 96
"""Characters that a trigger may begin before the match: words.DISTANCE and the longest word."""
BEFORE_DIGIT, BEHIND_DIGIT = 160, 24
"""Characters that the trigger of a rule with `digit` may begin before a digit, and end behind it."""


def always(text: str, match: re.Match[str]) -> bool:
    """For rules whose pattern alone is the proof."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One way a type of personal data is written.

    A finding starts at every position where `exact` matches and `check(text, match)` holds, save inside an
    earlier one; its span is `group`, the whole match by default.

    The other fields only save work. `trigger` is in the subset that RE2 and Hyperscan share (no
    look-around, no back references); to every exact match belongs a trigger that ends `least` to `lead`
    characters after its start, and begins at most `BEHIND` characters before it. Where that leaves many
    positions, `head` finds the start: it matches there, and ends no later than the trigger. Without a
    `head`, `exact` itself is searched, reading `reach` beyond the trigger.
    """

    name: str
    type: str
    trigger: str
    lead: int
    exact: re.Pattern[str]
    check: Check = always
    strength: int = 3
    """Settles overlaps, smaller wins: 0 checksum, 1 unmistakable form, 2 context, 3 shape."""
    least: int = 1
    head: re.Pattern[str] | None = None
    reach: int = 64
    group: int | str = 0
    digit: bool = False
    """To every match belongs a trigger that lies within `BEFORE_DIGIT` and `BEHIND_DIGIT` of a digit, be it
    in the trigger or behind it: what is far from digits need not be looked at."""


_NO_DIGITS = {code: None for code in range(256) if not chr(code).isdigit()}


def digits_of(text: str) -> str:
    """The digits of folded text."""
    return text.translate(_NO_DIGITS)


def any_of(*words: str) -> str:
    """A pattern for any of the words of space-separated lists."""
    return "|".join(" ".join(words).split())

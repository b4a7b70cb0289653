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
    the group `v` if the pattern has one, else the whole match.

    The other fields only save work. `trigger` is in the subset that RE2 and Hyperscan share (no
    look-around, no back references); every exact match must hold a trigger, possibly with the character
    before it, that ends `least` to `lead` characters after its start. Where that leaves many positions,
    `head` finds the start: it matches there, and ends no later than the trigger. Without a `head`, `exact`
    itself is searched, reading `reach` beyond the trigger.
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


def digits_of(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def any_of(*words: str) -> str:
    """A pattern for any of the words of space-separated lists."""
    return "|".join(" ".join(words).split())

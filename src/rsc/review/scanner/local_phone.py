"""Telephone numbers as people write them at home, where it is known where that is.

"9123 4567" is a number in Singapore and an amount elsewhere, so the rules leave it alone. With the region of
the policy or of the record, every number that the region's plan has in use is found, in groups or in one
piece, unless the words before it call it something else.

Not covered: numbers without their area code; numbers in one piece without a trunk prefix unless they are a
mobile's of nine digits or more: they look like any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

from rsc.review.findings import Finding
from rsc.review.scanner.normalise import Normaliser
from rsc.review.scanner.rules.borders import NOT_IN_ROW, NUMBER_AFTER, NUMBER_BEFORE
from rsc.review.scanner.rules.phone import (
    DATE,
    DOTTED,
    EXTENSION,
    EXTENSION_AT_END,
    plan_of,
    says_otherwise,
    valid_in,
)
from rsc.review.scanner.rules.rule import digits_of

_RULE = "phone_local"
_CANDIDATE = re.compile(
    rf"{NUMBER_BEFORE}(?<![+#$]){NOT_IN_ROW}\(?[0-9](?:[ .()/-]{{0,3}}[0-9]){{5,13}}{EXTENSION}{NUMBER_AFTER}"
    r"(?! ?(?:%|[A-Z]{3}\b|\xb0|km|kg|m2|ms|MB|GB)| [0-9])"
)
_SEVEN_DIGITS = re.compile(r"(?:\d[ .()/-]{0,3}){7}")
_LEAST_ALONE = 9  # digits in one piece without a trunk prefix
_PLAIN = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{3})+|[0-9]+\.[0-9]+|[0-9](?: [0-9]){3,}(?: [0-9]+)?")
"""Amounts, decimals, digits in a row."""


class LocalPhones:
    """Adds what the plan of a region makes a number. One per process, as a Normaliser."""

    def __init__(self) -> None:
        self._normaliser = Normaliser()

    def add(self, found: list[Finding], *, text: str, region: str) -> list[Finding]:
        """`found` and local numbers that nothing else covers, by start; nothing is added without a plan."""
        if not _SEVEN_DIGITS.search(text) or not _regions(region):
            return found
        folded = self._normaliser.fold(text)
        local = []
        for match in _CANDIDATE.finditer(folded.text):
            if _is_local(folded.text, match, region=region):
                start, end = folded.original(start=match.start(), end=match.end())
                local.append(Finding("phone", start, end, _RULE))
        return _joined(found, local) if local else found


def _joined(found: Sequence[Finding], local: Sequence[Finding]) -> list[Finding]:
    """Local numbers go before telephone numbers that they contain, and give way to all else."""
    kept: list[Finding] = []
    for number in local:
        touched = [f for f in found if f.start < number.end and f.end > number.start]
        if all(f.type == "phone" and number.start <= f.start and f.end <= number.end for f in touched):
            kept.append(number)
    rest = [f for f in found if all(f.end <= n.start or f.start >= n.end for n in kept)]
    return sorted([*rest, *kept], key=lambda f: f.start)


def _is_local(text: str, match: re.Match[str], *, region: str) -> bool:
    number = EXTENSION_AT_END.sub("", match[0])
    digits = digits_of(number)
    if DATE.match(number) or DOTTED.fullmatch(number) or _PLAIN.fullmatch(number) or len(set(digits)) == 1:
        return False
    for name in _regions(region):
        national = _national_part(digits, region=name)
        is_bare = number.isdigit() and national == digits
        if valid_in(name).fullmatch(national) and not (is_bare and not _is_bare_mobile(digits, region=name)):
            return not says_otherwise(text, match)
    return False


def _is_bare_mobile(digits: str, *, region: str) -> bool:
    """Landlines in one piece are written with their trunk prefix; without it they look like any count."""
    mobile = plan_of(region).mobile
    pattern = mobile.national_number_pattern if mobile else None
    is_time = len(digits) == 10 and digits[0] == "1"  # seconds since 1970
    return len(digits) >= _LEAST_ALONE and not is_time and bool(pattern and re.fullmatch(pattern, digits))


@cache
def _regions(region: str) -> tuple[str, ...]:
    """The region first, and those that share its country code."""
    for regions in COUNTRY_CODE_TO_REGION_CODE.values():
        if region in regions and region != "001":
            return (region, *(other for other in regions if other != region))
    return ()


@cache
def _trunk(region: str) -> tuple[re.Pattern[str], str]:
    """What a region's plan takes off the front of a number, and what it puts there instead."""
    plan = plan_of(region)
    rule = plan.national_prefix_transform_rule or ""
    return re.compile(plan.national_prefix_for_parsing or "(?!)"), rule


def _national_part(digits: str, *, region: str) -> str:
    """National significant number: the digits themselves where the plan has them, else without the prefix."""
    if valid_in(region).fullmatch(digits):
        return digits
    prefix, rule = _trunk(region)
    match = prefix.match(digits)
    if match is None:
        return digits
    if rule and match.lastindex and match[match.lastindex] is not None:
        return match.expand(rule.replace("$", "\\")) + digits[match.end() :]
    return digits[match.end() :]

"""Places named by two streets: "the corner of 5th and Main", "meet me at Oak and Lawson Street".

Not covered: two names without a word for a corner or a kind of street ("Oak and Lawson").
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.address import CASED_PREFIXES, KINDS, RARER_KINDS
from rsc.review.scanner.rules.address_parts import CAPITAL, NAME, REST, WORD
from rsc.review.scanner.rules.borders import NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule

_KIND = rf"(?i:{KINDS}|{RARER_KINDS})(?![A-Za-z0-9\xff])"
_ORDINAL = r"(?:[NSEW]\.? )?[0-9]{1,3}(?:st|nd|rd|th)(?![A-Za-z0-9])"
_PREFIXED = rf"(?:{CASED_PREFIXES}) {NAME}"
_WITH_KIND = rf"(?:{_PREFIXED}|(?:{_ORDINAL} |{WORD} ){{1,4}}{_KIND}|{_ORDINAL})"
_SIDE = rf"(?:{_WITH_KIND}|{WORD}(?: {WORD}){{0,3}})"
_AND = r",? (?:and|&|y|und|et|e|with) "
_CORNER_WORDS = "corner|intersection|junction|crossing|esquina|cruce|Ecke|angle"
_CORNER = re.compile(
    rf"{NOT_IN_WORD}(?i:(?:the )?(?:(?:north|south)?(?:east|west)?(?:ern)? )?(?:{_CORNER_WORDS}) "
    rf"(?:of |de |von |at )?)(?P<a>{_SIDE}){_AND}(?P<b>{_SIDE}){REST}"
)
_TWO_STREETS = re.compile(rf"{NOT_IN_WORD}(?:{_WITH_KIND}|{WORD}(?: {WORD}){{0,2}}){_AND}{_WITH_KIND}{REST}")
_IS_STREET = re.compile(rf"{_WITH_KIND}\Z")
_CONTEXT = (
    "address|liv(?:e|es|ed|ing)|resid(?:e|es|ing)|locat(?:ed|ion)|meet|arriv(?:e|es|ed)|taxi|cab"
    "|ship(?:ped)?|deliver(?:ed|y)?|mail(?:ed)?|sen[dt]|office|restaurant|moved|return|drop(?:s|ped)?|pick(?:ed)?"
)
_SAID = re.compile(
    rf"(?i)(?<![A-Za-z])(?:{_CONTEXT})(?: (?:address|is|are|it|them|now|to|at|in|here|me|you|us|off|up|from"
    r"|with|on|near|by|a|the|new|one|parcel|package|order|letter|card)){0,5}[\"']?[ :=,>\n\t]{1,6}[\"']?\Z"
)


def _is_corner(text: str, match: re.Match[str]) -> bool:
    """A corner has streets; an intersection may also be one of ideas ("of Art and Science")."""
    if match[0].lower().removeprefix("the ").startswith("corner"):
        return True
    return any(_IS_STREET.match(match[side]) for side in ("a", "b"))


def _is_said_place(text: str, match: re.Match[str]) -> bool:
    return _SAID.search(text, max(0, match.start() - 60), match.start()) is not None


RULES = (
    Rule(
        "street_corner",
        "street_address",
        rf"(?i)(?:{_CORNER_WORDS}) (?:of |de |von |at )?[A-Z0-9\xff]",
        48,
        _CORNER,
        _is_corner,
        least=6,
        reach=130,
    ),
    Rule(
        "streets_in_context",
        "street_address",
        rf"[ ](?:and|&|y|und|et|e) (?:[{CAPITAL}0-9][A-Za-z0-9'\xff.-]{{0,25}} ){{1,4}}"
        rf"(?:(?i:{KINDS})|{RARER_KINDS})",
        110,
        _TWO_STREETS,
        _is_said_place,
        least=10,
        reach=70,
    ),
)

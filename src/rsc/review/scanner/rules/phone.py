"""Telephone numbers, judged by the numbering plans that `phonenumbers` carries (ITU-T E.164 and national).

Five forms, from the firmest evidence to the weakest, each a rule of its own:
- international: `+` or an exit code, then a country code and as many digits as that country's plan has;
- North American: 3-3-4 digits with separators, the way those plans are always printed;
- national: a trunk 0 and groups, valid in the plan of a country below, or an area code in brackets;
- grouped: digits in uneven groups (never by thousands) that a plan without trunk 0 prints this way;
- in context: a word such as "tel" before it and 7 to 15 digits (E.164 section 6).

Not covered: bare digit runs without such a word, numbers written in words, vanity letters.
"""

from __future__ import annotations

import re
from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

from rsc.review.scanner.rules.borders import NOT_IN_ROW, NUMBER_AFTER, NUMBER_BEFORE, START
from rsc.review.scanner.rules.rule import Rule, digits_of
from rsc.review.scanner.rules.words import CALLS, PHONE, is_said, is_said_otherwise, trigger_after

EXTENSION_AT_END = re.compile(r"[,\s]*(?:[xX#]|[Ee]xt\.?|extension)\s?[0-9]{1,6}$")
_TRUNK_REGIONS = (
    "GB FR DE AU NL BE CH AT SE FI IE IN JP KR CN TW TH MY ID PH VN PK BD LK IL TR ZA EG KE NG GH MA DZ TN "
    "NZ AR BR"
    " RO BG HR RS SI SK UA AE SA JO LB IR IQ AL MK BA ME LT IT"
)
"""Plans that write a trunk 0 before the area code (Italy: within the number), likeliest first."""

_OPEN_REGIONS = "ES NO DK PL PT CZ GR HU LV EE CH BE RU UA"
"""Plans whose numbers have no trunk 0, or that are often written without it."""
EXTENSION = r"(?:,?\s?(?:x|X|[Ee]xt\.?|extension|#)\s?[0-9]{1,6})?"
_BEFORE = rf"{NUMBER_BEFORE}(?<![+#$])"
_ALONE = rf"{NOT_IN_ROW}(?<! [a-f][0-9a-f] )(?<! [0-9][a-f] )"  # not in a row of numbers or bytes
_AFTER = NUMBER_AFTER
_OPEN = r"(?:\((?=[0-9]{2,5}\)))?"  # a bracket that closes after an area code
_GAP = r"[ .()/-]{0,3}"
_INTERNATIONAL = re.compile(
    rf"{_BEFORE}(?:\((?=\+[0-9]{{1,3}}\))\+|\+|00(?=[1-9 -])|011[ -](?=[1-9]))"
    rf"[( ]?[0-9](?:{_GAP}[0-9]){{6,17}}{EXTENSION}{_AFTER}"
)
_AMERICAN = re.compile(
    rf"{_BEFORE}(?:(?:001|\+?1)[-. ]{{0,2}})?(?:\([2-9][0-9]{{2}}\) ?-?|[2-9][0-9]{{2}}(?:[-./] ?|\s))"
    rf"[0-9]{{3}}[-. ][0-9]{{4}}{EXTENSION}{_AFTER}"
)
_NATIONAL = re.compile(
    rf"{_BEFORE}{_ALONE}{_OPEN}0[1-9][0-9]{{0,4}}\)?(?:[ "
    rf".()/-]{{1,3}}[0-9]{{2,8}}){{1,5}}{EXTENSION}{_AFTER}"
)
_BRACKETED = re.compile(
    rf"{_BEFORE}{_ALONE}\((?!19|20)[0-9]{{2,5}}\)[ /-]?[0-9]{{2,5}}(?:[ "
    rf"-][0-9]{{2,4}}){{1,3}}{EXTENSION}{_AFTER}"
)
_GROUPED = re.compile(
    rf"{_BEFORE}{_ALONE}(?:[0-9]{{2}}(?P<a>[ .-])[0-9]{{2}}(?P=a)[0-9]{{2}}(?P=a)[0-9]{{2}}|[0-9]{{3}} "
    rf"[0-9]{{2}} [0-9]{{2}} [0-9]{{2}}"
    rf"|[0-9]{{3}} [0-9]{{2}} [0-9]{{3}}|[0-9]{{3}} [0-9]{{3}} [0-9]{{2}} [0-9]{{2}}|[0-9]{{2}} [0-9]{{3}} "
    rf"[0-9]{{2}} [0-9]{{2}})"
    rf"(?! [0-9]| [0-9a-f]{{2}} ){NUMBER_AFTER}"
)
_LABELS = r"(?:office|work|home|mobile|mobil|cell|fax|tel|pager|direct)"
"""Kinds of numbers (RFC 6350 section 6.4.1 and everyday words), as directories print them behind."""
_LABELLED = re.compile(
    rf"{_BEFORE}{_OPEN}(?P<v>[0-9](?:{_GAP}[0-9]){{5,11}})[ -]{{1,2}}\(?(?i:{_LABELS})\)?(?=[\n\\,;.)]|\Z)"
)
_ANY = re.compile(rf"{_BEFORE}(?:\+\s?)?{_OPEN}[0-9](?:{_GAP}[0-9]){{6,14}}{EXTENSION}{_AFTER}")
DATE = re.compile(
    r"(?:(?:19|20)[0-9]{2}[-./ ][0-9]{1,2}[-./ ][0-9]{1,2}|[0-9]{1,2}[-./ ][0-9]{1,2}[-./ ](?:19|20)[0-9]{2})"
    r"(?: [0-9]{1,6})?$"
)
DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9]+(?:\.[0-9]+)*\.[0-9](?:\.[0-9]+)*")
"""An IPv4 address, or dotted parts of which one is a single digit: an object identifier, a version."""


_THOUSANDS = re.compile(r"\+?[0-9]{1,3}(?:[ .,][0-9]{3})+")
_TWO_PARTS = re.compile(r"[0-9]+\.[0-9]+|[0-9]{5}-[0-9]{4}")
"""A decimal with a leading zero, a US ZIP+4."""
_IN_ONE = re.compile(r"\+?[0-9]+(?:\.[0-9]{1,3})?")
"""Digits in one piece, or a signed decimal."""
_OWNED = re.compile(
    r"(?i)(?<![a-z])(?:my|new|his|her|our|your|their)\s"
    r"(?:number|num)(?: is)?[:\s]{1,2}\Z"
)
"""A number that is somebody's, where nothing says which kind."""


@cache
def _possible(region: str, country_code: int) -> re.Pattern[str]:
    """What a region's plan allows as a national significant number."""
    plan = plan_of(region, country_code).general_desc
    return re.compile(plan.national_number_pattern if plan and plan.national_number_pattern else "(?!)")


@cache
def valid_in(region: str) -> re.Pattern[str]:
    """National significant numbers that are in use in a region: subscribers and services."""
    plan = plan_of(region)
    kinds = (plan.fixed_line, plan.mobile, plan.toll_free, plan.shared_cost, plan.voip, plan.personal_number)
    return re.compile(
        "|".join(kind.national_number_pattern for kind in kinds if kind and kind.national_number_pattern)
    )


def plan_of(region: str, country_code: int = 0) -> PhoneMetadata:
    """Region "001" stands for country codes that are no country's: satellites, international freephone."""
    if region == "001":
        metadata = PhoneMetadata.metadata_for_nongeo_region(country_code)
    else:
        metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None, f"phonenumbers has no plan for {region} {country_code}"
    return metadata


def is_possible_international(digits: str) -> bool:
    """E.164 digits without `+`: an assigned country code and a number its plan allows, trunk 0 tolerated."""
    for length in (1, 2, 3):
        code = int(digits[:length])
        for region in COUNTRY_CODE_TO_REGION_CODE.get(code, ()):
            rest = digits[length:]
            if any(_possible(region, code).fullmatch(form) for form in (rest, rest.removeprefix("0"))):
                return True
    return False


def is_in_use(digits: str) -> bool:
    """E.164 digits without `+` that a plan gives to subscribers or services."""
    for length in (1, 2, 3):
        for region in COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:length]), ()):
            if region != "001" and valid_in(region).fullmatch(digits[length:]):
                return True
    return False


def _is_international(text: str, match: re.Match[str]) -> bool:
    number = EXTENSION_AT_END.sub("", match[0])
    digits = digits_of(number)
    for prefix in ("011", "00"):
        if not number.startswith(("+", "(+")):
            digits = digits.removeprefix(prefix)
    if number.isdigit() and not is_said(text, match.start(), words=PHONE):
        return False  # an exit code and nothing else: any long number with two leading zeros
    if not 7 <= len(digits) <= 16:
        return False
    if _IN_ONE.fullmatch(number) and not is_said(text, match.start(), words=PHONE):
        return "." not in number and is_in_use(digits)  # else any signed number of a program
    return is_possible_international(digits) or _is_printed_as_one(number, digits)


def _is_printed_as_one(number: str, digits: str) -> bool:
    """`+`, an assigned country code, and two or more groups that are no thousands: a number that its plan
    does not (yet) have, such as those reserved for examples."""
    is_assigned = any(int(digits[:length]) in COUNTRY_CODE_TO_REGION_CODE for length in (1, 2, 3))
    is_grouped = len(re.findall(r"[0-9]+", number)) >= 3 and _THOUSANDS.fullmatch(number) is None
    return number.startswith(("+", "(+")) and is_assigned and is_grouped and 9 <= len(digits) <= 15


def _is_labelled(text: str, match: re.Match[str]) -> bool:
    number = match["v"]
    digits = digits_of(number)
    is_amount = len(digits) < 9 and _THOUSANDS.fullmatch(number) is not None
    return len(set(digits)) > 1 and not (is_amount or DATE.fullmatch(number) or DOTTED.fullmatch(number))


def _is_american(text: str, match: re.Match[str]) -> bool:
    return not says_otherwise(text, match)


def _is_national(text: str, match: re.Match[str]) -> bool:
    number = EXTENSION_AT_END.sub("", match[0])
    digits = digits_of(number)
    if DATE.fullmatch(number) or DOTTED.fullmatch(number) or not 9 <= len(digits) <= 12:
        return False
    if _TWO_PARTS.fullmatch(number) and not is_said(text, match.start(), words=PHONE):
        return False
    if says_otherwise(text, match):
        return False
    return any(valid_in(region).fullmatch(digits[region != "IT" :]) for region in _TRUNK_REGIONS.split())


def _is_grouped(text: str, match: re.Match[str]) -> bool:
    digits = digits_of(match[0])
    if len(set(digits)) == 1 or DOTTED.fullmatch(match[0]) or says_otherwise(text, match):
        return False
    return any(valid_in(region).fullmatch(digits) for region in _OPEN_REGIONS.split())


def _is_bracketed(text: str, match: re.Match[str]) -> bool:
    return 7 <= len(digits_of(EXTENSION_AT_END.sub("", match[0]))) <= 12 and not says_otherwise(text, match)


def _is_in_context(text: str, match: re.Match[str]) -> bool:
    return is_said(text, match.start(), words=PHONE) and _is_plain_number(match[0])


_CALLED = CALLS - {"number", "num"}
"""A bare "number" says nothing: orders have one too."""


def _is_called(text: str, match: re.Match[str]) -> bool:
    is_owned = len(digits_of(match[0])) >= 9 and _OWNED.search(
        text, max(0, match.start() - 40), match.start()
    )
    return bool(is_said(text, match.start(), words=_CALLED) or is_owned) and _is_plain_number(match[0])


def _is_plain_number(found: str) -> bool:
    number = EXTENSION_AT_END.sub("", found)
    return not (DATE.match(number) or DOTTED.fullmatch(number)) and len(set(digits_of(number))) > 1


def says_otherwise(text: str, match: re.Match[str]) -> bool:
    return is_said_otherwise(text, match, words=PHONE)


_SIX_MORE = r"(?:[ .()/-]{0,3}[0-9]){6}"
RULES = (
    Rule(
        "phone_international",
        "phone",
        rf"(?:\+|{START}00|{START}011[ -])[( ]{{0,2}}[0-9]{_SIX_MORE}",
        34,
        _INTERNATIONAL,
        _is_international,
        strength=1,
        least=8,
        reach=4,
        digit=True,
    ),
    Rule(
        "phone_american",
        "phone",
        r"[2-9][0-9]{2}(?:\) ?-?|[-./] ?|\s)[0-9]{3}[-. ][0-9]{4}",
        24,
        _AMERICAN,
        _is_american,
        strength=2,
        least=12,
        reach=10,
        digit=True,
    ),
    Rule(
        "phone_national",
        "phone",
        rf"{START}\(?0[1-9](?:[ .()/-]{{0,4}}[0-9]){{7}}",
        38,
        _NATIONAL,
        _is_national,
        strength=2,
        least=9,
        reach=12,
        digit=True,
    ),
    Rule(
        "phone_bracketed",
        "phone",
        r"\([0-9]{2,5}\)[ /-]?[0-9]{2}",
        10,
        _BRACKETED,
        _is_bracketed,
        strength=2,
        least=6,
        reach=20,
        digit=True,
    ),
    Rule(
        "phone_grouped",
        "phone",
        rf"{START}(?:[0-9]{{2}}(?:[ .-][0-9]{{2}}){{3}}"
        r"|[0-9]{3} [0-9]{2} (?:[0-9]{2} [0-9]{2}|[0-9]{3})|[0-9]{2,3} [0-9]{3} [0-9]{2} [0-9]{2})",
        13,
        _GROUPED,
        _is_grouped,
        strength=3,
        least=10,
        reach=8,
        digit=True,
    ),
    Rule(
        "phone_labelled",
        "phone",
        rf"(?i)[0-9][ -]{{1,2}}\(?{_LABELS}",
        62,
        _LABELLED,
        _is_labelled,
        strength=2,
        least=10,
        reach=3,
        group="v",
        digit=True,
    ),
    Rule("phone_in_context", "phone", trigger_after(PHONE), 4, _ANY, _is_in_context, strength=2, digit=True),
    Rule("phone_called", "phone", trigger_after(CALLS), 4, _ANY, _is_called, strength=2, digit=True),
)

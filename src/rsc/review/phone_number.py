"""One form for every spelling of a telephone number.

Where a region is known (of the policy, or of the record), E.164: "+442079460018" for "020 7946 0018" read in
GB, with trunk prefixes and mobile prefixes as the region's plan has them. Where none is, the national
significant number, without country code and trunk prefix, so that "+44 (0)20 7946 0018" and "020 7946 0018"
still agree; numbers of two countries with the same national part share that form.

Not covered: numbers without their area code; vanity letters.
"""

from __future__ import annotations

import re
from functools import cache

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, NumberParseException

from rsc.review.scanner.rules.phone import plan_of

NO_REGION = "ZZ"
"""Of a record that does not name one, where others do: E.164 for what has a country code."""
_EXTENSION = re.compile(r"[,;\s]*(?:x|ext(?:ension|\.)?|#|poste|durchwahl)\s?[0-9]{1,6}$")
_EXIT_CODES = ("0011", "011", "00")
_PLUS = re.compile(r"[^0-9]*\+")
_SHORTEST, _LONGEST = 6, 17
_E164 = phonenumbers.PhoneNumberFormat.E164
_RETIRED = {"MX": re.compile(r"^(?:01|04[45]|1)(?=[0-9]{10}$)")}
"""Prefixes that a plan gave up (Mexico in 2019) and that people still write."""


def phone_form(folded: str, *, region: str = "") -> str:
    """The form of a folded number, lower case; nothing for what holds no number."""
    if region and (number := _in_region(folded, region=region)):
        return number
    is_international, digits = _read(folded)
    if is_international:
        digits = digits[len(_country_code(digits)) :]
    elif len(digits) == 11 and digits[0] in "18":
        digits = digits[1:]  # the trunk prefixes of North America and of Russia
    national = digits.lstrip("0")
    return national if len(national) >= _SHORTEST else digits


def phone_forms(folded: str) -> set[str]:
    """The forms under which data may hold a number, whatever region it was imported with."""
    forms = {phone_form(folded)}
    whole = _digits_of(_without_extension(folded))
    if not _PLUS.match(folded) and _SHORTEST <= len(whole) <= _LONGEST:
        readings = (_national(whole, region=region) for region in phonenumbers.SUPPORTED_REGIONS)
        forms |= {number for number in readings if number}
    is_international, digits = _read(folded)
    if is_international and (number := _international(digits)):
        national = number[1 + len(_country_code(digits)) :]
        for region in COUNTRY_CODE_TO_REGION_CODE[int(_country_code(digits))]:
            forms |= {number, phone_form((trunk_prefix(region) or "0") + national), phone_form(national)}
    return forms


def region_in(value: object) -> str:
    """The region that a value names: "GB", "gb", "en-GB", "pt_BR.UTF-8"; nothing where it names none."""
    match = re.fullmatch(r"(?:[A-Za-z]{2,3}[-_])?([A-Za-z]{2})(?:[.@].{0,16})?", str(value).strip())
    region = match[1].upper() if match else ""
    return region if region in _REGIONS else ""


@cache
def trunk_prefix(region: str) -> str:
    """What a plan writes before national numbers, digits alone; nothing where it writes none."""
    return re.sub(r"[^0-9]", "", (plan_of(region).national_prefix if region in _REGIONS else "") or "")


_REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)


def _read(folded: str) -> tuple[bool, str]:
    """Whether a country code leads, and the digits without plus sign, exit code and extension."""
    digits = _digits_of(_without_extension(folded))
    if _PLUS.match(folded):
        return True, digits
    for prefix in _EXIT_CODES:
        if digits.startswith(prefix) and len(digits) > 10 and _country_code(digits[len(prefix) :]):
            return True, digits[len(prefix) :]
    return False, digits


def _in_region(folded: str, *, region: str) -> str:
    """E.164, or nothing where neither a country code nor the region's plan explains the digits."""
    is_international, digits = _read(folded)
    if region == NO_REGION or _PLUS.match(folded):
        return _international(digits) if is_international else ""
    number = _national(_digits_of(_without_extension(folded)), region=region)
    return number or (_international(digits) if is_international else "")


def _without_extension(folded: str) -> str:
    return _EXTENSION.sub("", folded.removeprefix("tel:"))


def _digits_of(number: str) -> str:
    return re.sub(r"[^0-9]", "", number)


def _country_code(digits: str) -> str:
    lengths = (length for length in (1, 2, 3) if int(digits[:length] or 0) in COUNTRY_CODE_TO_REGION_CODE)
    return digits[: next(lengths, 0)]


def _national(digits: str, *, region: str) -> str:
    """E.164 of what the plan of a region has in use; else nothing."""
    digits = _RETIRED[region].sub("", digits) if region in _RETIRED else digits
    number = _parsed(digits, region=region)
    is_used = number is not None and phonenumbers.is_valid_number(number)
    return phonenumbers.format_number(number, _E164) if number is not None and is_used else ""


def _international(digits: str) -> str:
    """E.164 of digits behind a plus sign, if a plan may have as many; else nothing."""
    number = _parsed("+" + re.sub(r"^521(?=[0-9]{10}$)", "52", digits), region=NO_REGION)
    is_one = number is not None and phonenumbers.is_possible_number(number)
    return phonenumbers.format_number(number, _E164) if number is not None and is_one else ""


def _parsed(text: str, *, region: str) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except NumberParseException:
        return None

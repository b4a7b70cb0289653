"""Telephone numbers, judged by the numbering plans that `phonenumbers` carries (ITU-T E.164 and national).

Four forms, from the firmest evidence to the weakest, each a rule of its own:
- international: `+` or an exit code, then a country code and as many digits as that country's plan has;
- North American: 3-3-4 digits with separators, the way those plans are always printed;
- national: a trunk 0 and groups, valid in the plan of one of the countries below;
- in context: a word such as "tel" before it and 7 to 15 digits (E.164 section 6).

Not covered: bare digit runs without such a word, numbers written in words, vanity letters.
"""

from __future__ import annotations

import re
from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

from rsc.review.rules.rule import Rule, digits_of

_EXTENSION_AT_END = re.compile(r"[,\s]*(?:[xX#]|[Ee]xt\.?|extension)\s?[0-9]{1,6}$")
_TRUNK_REGIONS = [
    "GB",
    "FR",
    "DE",
    "AU",
    "NL",
    "BE",
    "CH",
    "AT",
    "SE",
    "FI",
    "IE",
    "IN",
    "JP",
    "KR",
    "CN",
    "TW",
    "TH",
    "MY",
    "ID",
    "PH",
    "VN",
    "PK",
    "BD",
    "LK",
    "IL",
    "TR",
    "ZA",
    "EG",
    "KE",
    "NG",
    "GH",
    "MA",
    "DZ",
    "TN",
    "NZ",
    "AR",
    "BR",
    "RO",
    "BG",
    "HR",
    "RS",
    "SI",
    "SK",
    "UA",
    "AE",
    "SA",
    "JO",
    "LB",
    "IR",
    "IQ",
    "AL",
    "MK",
    "BA",
    "ME",
    "LT",
]
_EXTENSION = r"(?:,?\s?(?:x|X|[Ee]xt\.?|extension|#)\s?[0-9]{1,6})?"
_BEFORE = r"(?<![0-9A-Za-z_\xff])(?<![0-9][.,:/-])(?<![+(#$])"
_AFTER = r"(?![0-9A-Za-z_\xff]|[.,:/-][0-9])"
_GAP = r"[ .()/-]{0,3}"

_INTERNATIONAL = re.compile(
    rf"{_BEFORE}(?:\+|\(\+|00(?=[1-9 -])|011[ -](?=[1-9]))[( ]?[1-9]?(?:{_GAP}[0-9]){{6,17}}{_EXTENSION}{_AFTER}"
)
_AMERICAN = re.compile(
    rf"{_BEFORE}(?:(?:001|\+?1)[-. ]{{0,2}})?(?:\([2-9][0-9]{{2}}\) ?-?|[2-9][0-9]{{2}}(?P<s>[-. /])\s?)[0-9]{{3}}[-. ][0-9]{{4}}"
    rf"{_EXTENSION}{_AFTER}"
)
_NATIONAL = re.compile(
    rf"{_BEFORE}\(?0[1-9][0-9]{{0,4}}\)?(?:[ .()/-]{{1,3}}[0-9]{{2,8}}){{1,5}}{_EXTENSION}{_AFTER}"
)
_WORDS = (
    r"tele?ph?one?s?|tel|telf?|fono|fon|phones?|ph|mobile?|mob|cell(?:ular|phone)?|celular|cellulare|movil|handy|portable|gsm"
    r"|fax|telefax|call(?:ed|ing)?|ring|dial|text(?:ed)?|sms|whatsapp|signal|viber|hotline|voicemail|rufnummer|telefonnummer"
    r"|handynummer|numer telefonu|contact(?: number)?|reach(?: me| us| him| her| them)?"
)
_IN_CONTEXT = re.compile(
    rf"(?i)(?<![A-Za-z0-9\xff])(?:{_WORDS})(?![A-Za-z0-9\xff])[^0-9+(\n]{{0,24}}(?P<v>[+(]{{0,2}}[0-9](?:{_GAP}[0-9]){{6,14}}{_EXTENSION}){_AFTER}"
)
_OTHER_THING = re.compile(
    r"(?i)(?<![A-Za-z])(?:order|invoice|part|build|isbn|issn|sku|version|ver|ticket|serial|tracking|ref(?:erence)?|case|acc(?:oun)?t"
    r"|model|doi|oid|u?id|pid|timestamp|epoch|port|code|commit|rev(?:ision)?|batch|lot|item|product|page|bytes|total|price)"
    r"(?![A-Za-z])[^A-Za-z]{0,12}$"
)
_DATE = re.compile(
    r"(?:[0-9]{4}[-./ ][0-9]{1,2}[-./ ][0-9]{1,2}|[0-9]{1,2}[-./ ][0-9]{1,2}[-./ ](?:19|20)[0-9]{2})(?: [0-9]{1,6})?"
)
_DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3,}")


@cache
def _possible(region: str, country_code: int) -> re.Pattern[str]:
    """What a region's plan allows as a national significant number."""
    plan = _metadata(region, country_code).general_desc
    return re.compile(plan.national_number_pattern if plan and plan.national_number_pattern else "(?!)")


@cache
def _valid(region: str) -> re.Pattern[str]:
    """National significant numbers that are in use in a region: subscribers and services."""
    plan = _metadata(region, 0)
    kinds = (plan.fixed_line, plan.mobile, plan.toll_free, plan.shared_cost, plan.voip, plan.personal_number)
    return re.compile(
        "|".join(kind.national_number_pattern for kind in kinds if kind and kind.national_number_pattern)
    )


def _metadata(region: str, country_code: int) -> PhoneMetadata:
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


def _is_international(text: str, match: re.Match[str]) -> bool:
    number = _EXTENSION_AT_END.sub("", match[0])
    digits = digits_of(number)
    for prefix in ("011", "00"):
        if not number.startswith(("+", "(+")):
            digits = digits.removeprefix(prefix)
    return 7 <= len(digits) <= 16 and is_possible_international(digits)


def _is_american(text: str, match: re.Match[str]) -> bool:
    return not _says_otherwise(text, match)


def _is_national(text: str, match: re.Match[str]) -> bool:
    number = _EXTENSION_AT_END.sub("", match[0])
    digits = digits_of(number)
    if _DATE.fullmatch(number) or _DOTTED.fullmatch(number) or not 9 <= len(digits) <= 12:
        return False
    return any(_valid(region).fullmatch(digits[1:]) for region in _TRUNK_REGIONS) and not _says_otherwise(
        text, match
    )


def _is_in_context(text: str, match: re.Match[str]) -> bool:
    number = _EXTENSION_AT_END.sub("", match["v"])
    return not (_DATE.match(number) or _DOTTED.fullmatch(number)) and len(set(digits_of(number))) > 1


def _says_otherwise(text: str, match: re.Match[str]) -> bool:
    """The words just before call the number something else."""
    return _OTHER_THING.search(text, max(0, match.start() - 28), match.start()) is not None


_DIGITS = r"[0-9][ .()/-]{0,3}"
RULES = (
    Rule("phone_international", "phone", rf"(?:\+|(?:^|[^0-9.,:/-])00|011[ -])[( ]?{_DIGITS}{_DIGITS}{_DIGITS}[0-9]", 24,
         _INTERNATIONAL, _is_international, strength=1),
    Rule("phone_american", "phone", r"[0-9]{3}(?:\) ?-?|[-. /]\s?)[0-9]{3}[-. ][0-9]{4}", 24, _AMERICAN, _is_american, strength=2),
    Rule("phone_national", "phone", r"(?:^|[^0-9A-Za-z])0[1-9][0-9]{0,4}[ .()/-]{1,4}[0-9]{2}", 16, _NATIONAL, _is_national, strength=2),
    Rule("phone_in_context", "phone", rf"(?i)(?:{_WORDS})[^0-9A-Za-z\xff][^0-9\n]{{0,28}}{_DIGITS}{_DIGITS}{_DIGITS}[0-9]", 80,
         _IN_CONTEXT, _is_in_context, strength=2),
)  # fmt: skip

"""US social security numbers, and national identifiers that are bare digits.

Bare digits need their name, or a word such as "national", as the nearest telling word before them, and the
check digits of that country, or of any country with numbers of that length. Forms of their own stand in
national_forms.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rsc.review.scanner.rules import national_checks as checks
from rsc.review.scanner.rules import national_forms
from rsc.review.scanner.rules.borders import START
from rsc.review.scanner.rules.national_forms import AFTER, BEFORE, compact
from rsc.review.scanner.rules.national_names import LONG_NAMES, NAMED, NAMES, SHORT_NAMES
from rsc.review.scanner.rules.rule import Check, Rule
from rsc.review.scanner.rules.words import (
    BIRTH,
    OTHER,
    PHONE,
    SOCIAL_SECURITY,
    is_said,
    is_said_otherwise,
    nearest,
    trigger_after,
)

_BARE: dict[int, tuple[Callable[[str], bool], ...]] = {
    8: (checks.new_zealand_ird,),
    9: (
        checks.netherlands_bsn,
        checks.portugal_nif,
        checks.israel_identity,
        checks.canada_sin,
        checks.australia_tfn,
        checks.new_zealand_ird,
        checks.hungary_taj,
    ),
    10: (
        checks.uk_nhs,
        checks.sweden_personal,
        checks.denmark_cpr,
        checks.iceland_kennitala,
        checks.czech_birth,
        checks.bulgaria_egn,
        checks.austria_insurance,
        checks.ukraine_tax,
        checks.ecuador_cedula,
        checks.australia_medicare,
        checks.hungary_tax_id,
    ),
    11: (
        checks.poland_pesel,
        checks.baltic_code,
        checks.germany_tax_id,
        checks.croatia_oib,
        checks.belgium_national,
        checks.norway_birth,
        checks.latvia_code,
        checks.greece_amka,
        checks.turkey_identity,
        checks.brazil_cpf,
        checks.russia_snils,
        checks.argentina_cuil,
        checks.dominican_cedula,
        checks.mexico_nss,
    ),
    12: (
        checks.japan_my_number,
        checks.russia_inn,
        checks.india_aadhaar,
        checks.malaysia_identity,
        checks.sweden_personal,
    ),
    13: (
        checks.yugoslav_jmbg,
        checks.romania_cnp,
        checks.south_africa_identity,
        checks.thailand_identity,
        checks.korea_resident,
    ),
}
"""Digits -> checks of the countries whose number is that long: one must hold."""

_BARE_FORM = re.compile(rf"{BEFORE}[0-9](?:[ .-]?[0-9]){{7,12}}{AFTER}")


def _bare(names: frozenset[str]) -> Check:
    """A check of bare digits for which one of `names` is the nearest telling word: its country's number must
    hold, or for a general word such as "national" that of any country with as many digits."""

    def holds(text: str, match: re.Match[str]) -> bool:
        digits = compact(match[0])
        word = nearest(text, match.start(), words=_TELLING)
        if word not in names or len(set(digits)) < 3:
            return False
        tested = NAMED.get(word, _ALL_CHECKS)
        return any(check in tested and check(digits) for check in _BARE[len(digits)])

    return holds


_ALL_CHECKS = tuple(check for tested in _BARE.values() for check in tested)
_TELLING = NAMES | OTHER | PHONE | BIRTH
_SSN_FORM = r"(?!000|666|9[0-9]{2})[0-9]{3}%s(?!00)[0-9]{2}%s(?!0000)[0-9]{4}"
_SSN = re.compile(BEFORE + _SSN_FORM % ("(?P<s>[- ])", "(?P=s)") + AFTER)
_ITIN = re.compile(rf"{BEFORE}9[0-9]{{2}}-(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])-[0-9]{{4}}{AFTER}")
_SSN_ANY = re.compile(BEFORE + _SSN_FORM % ("[-. ]?", "[-. ]?") + AFTER)


def _is_ssn(text: str, match: re.Match[str]) -> bool:
    """Social Security Administration: area not 000, 666, 9xx; group not 00; serial not 0000."""
    return not is_said_otherwise(text, match, words=SOCIAL_SECURITY)


def _is_ssn_in_context(text: str, match: re.Match[str]) -> bool:
    return is_said(text, match.start(), words=SOCIAL_SECURITY)


RULES = (
    *national_forms.RULES,
    Rule(
        "national_number",
        "national_id",
        trigger_after(LONG_NAMES),
        1,
        _BARE_FORM,
        _bare(LONG_NAMES),
        strength=2,
        digit=True,
    ),
    Rule(
        "national_number_short",
        "national_id",
        trigger_after(SHORT_NAMES),
        1,
        _BARE_FORM,
        _bare(SHORT_NAMES),
        strength=2,
        digit=True,
    ),
    Rule(
        "us_ssn",
        "ssn",
        rf"{START}[0-8][0-9]{{2}}[- ][0-9]{{2}}[- ][0-9]{{4}}",
        11,
        _SSN,
        _is_ssn,
        strength=2,
        least=11,
        digit=True,
    ),
    Rule(
        "us_itin",
        "ssn",
        rf"{START}9[0-9]{{2}}-[5-9][0-9]-[0-9]{{4}}",
        11,
        _ITIN,
        _is_ssn,
        strength=2,
        least=11,
        digit=True,
    ),
    Rule(
        "us_ssn_in_context",
        "ssn",
        trigger_after(SOCIAL_SECURITY),
        1,
        _SSN_ANY,
        _is_ssn_in_context,
        strength=1,
        digit=True,
    ),
)

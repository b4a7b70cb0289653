"""Payment cards and bank accounts.

Cards: ISO/IEC 7812 (12 to 19 digits, Luhn), issuer ranges as published by the networks. IBAN: ISO 13616
with the length of each country in the SWIFT registry and ISO/IEC 7064 MOD 97-10.
"""

from __future__ import annotations

import re

from rsc.review.scanner.checksums import luhn, mod_97_10
from rsc.review.scanner.rules.borders import (
    NOT_GOING_ON,
    NOT_IN_WORD,
    NUMBER_AFTER,
    NUMBER_BEFORE,
    START,
)
from rsc.review.scanner.rules.rule import Rule, any_of, digits_of
from rsc.review.scanner.rules.words import is_said, is_said_otherwise

_CARD = re.compile(
    rf"{NUMBER_BEFORE}(?<!(?<![0-9])0,)(?:(?:[2-6][0-9]{{3}}|1800|0604)(?:[ -]{{0,2}}[0-9]){{8,15}}"
    r"|[2-6][0-9]{3}(?:\.[0-9]{4}){3})"
    rf"{NUMBER_AFTER}"
)
_ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11,16}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}"
    r"|(?:2131|1800)[0-9]{11}|35[0-9]{14,17}|62[0-9]{14,17}"
    r"|(?:0604|5018|5020|5038|5[6-8][0-9]{2}|6304|6390|6759|676[1-3]|60[0-9]{2})[0-9]{8,15}"
)
_COUNTRIES_OF_LENGTH = {
    15: "NO",
    16: "BE",
    18: "DK FK FO FI GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}


def _iban_pattern(*, letters: str, gap: str) -> str:
    forms = []
    for length, names in _COUNTRIES_OF_LENGTH.items():
        countries = "|".join(names.split()) if letters == "A-Z" else "|".join(names.lower().split())
        forms.append(
            rf"(?:{countries}){gap}[0-9]{{2}}{gap}[0-9{letters}]{{2}}(?:{gap}[0-9{letters}]){{{length - 6}}}"
        )
    return rf"{NOT_IN_WORD}(?:{'|'.join(forms)}){NOT_GOING_ON}"


_GROUPS_OF_FOUR = (
    rf"{NOT_IN_WORD}[a-z]{{2}}[0-9]{{2}}(?: [0-9a-z]{{4}}){{2,7}}(?: [0-9a-z]{{1,3}})?{NOT_GOING_ON}"
)
# Other groups only in capitals, as they are printed: "at 1675838976 by the" must not become an account.
_IBAN = re.compile(
    "|".join(
        (_iban_pattern(letters="A-Z", gap="[ -]?"), _iban_pattern(letters="a-z", gap=""), _GROUPS_OF_FOUR)
    )
)


_CARD_WORDS = frozenset(
    any_of(
        "card cards visa mastercard maestro amex credit debit cc payment pay paid charge charged",
        "karte kreditkarte kartennummer carte tarjeta carta cartao kort kaart karta expiry cvv cvc",
        "ccn",
    ).split("|")
)
_IN_TWO = re.compile(r"[0-9]{6,}[ -]+[0-9]{6,}")


def is_card_number(digits: str) -> bool:
    """An issuer's range, its length and the check digit."""
    return luhn(digits) and _ISSUERS.fullmatch(digits) is not None and len(set(digits)) > 1


def _is_card(text: str, match: re.Match[str]) -> bool:
    """Below 14 digits it may be a bar code (EAN-13), above 16 a message id, in two parts a range: then a word
    must say "card"; and digits in one piece must not be called a transaction or the like."""
    digits = digits_of(match[0])
    if not is_card_number(digits):
        return False
    if match[0].isdigit() and is_said_otherwise(text, match, words=_CARD_WORDS):
        return False
    if 14 <= len(digits) <= 16 and _IN_TWO.fullmatch(match[0]) is None:
        return True
    return is_said(text, match.start(), words=_CARD_WORDS)


def _is_iban(text: str, match: re.Match[str]) -> bool:
    compact = match[0].replace(" ", "").replace("-", "").upper()
    if compact[:2] not in _COUNTRIES_OF_LENGTH.get(len(compact), "").split():
        return False
    return mod_97_10(compact[4:] + compact[:4])


RULES = (
    Rule(
        "card",
        "credit_card",
        rf"{START}(?:(?:[2-6][0-9]{{3}}|1800|0604)(?:[ -]{{0,2}}[0-9]){{8}}"
        r"|[2-6][0-9]{3}(?:\.[0-9]{4}){2})",
        28,
        _CARD,
        _is_card,
        strength=0,
        least=12,
        reach=8,
        digit=True,
    ),
    Rule(
        "iban",
        "iban",
        rf"{START}(?:[A-Z]{{2}}[ -]?[0-9]{{2}}[ -]?[0-9A-Z]{{2}}|[a-z]{{2}}[0-9]{{2}} ?[0-9a-z]{{2}})",
        8,
        _IBAN,
        _is_iban,
        strength=0,
        least=6,
        reach=34,
        digit=True,
    ),
)

"""US social security numbers, and national identifiers with a check digit, by the rules of their offices.

An identifier whose printed form or structure makes a chance match rare (a date and check digits, letters
in fixed places, its own punctuation) is taken as it is. Bare digit runs need their name, or a word such
as "id", as the nearest telling word before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rsc.review.rules import national_checks as checks
from rsc.review.rules.rule import Check, Rule, any_of
from rsc.review.rules.words import (
    BIRTH,
    OTHER,
    PHONE,
    SOCIAL_SECURITY,
    is_said,
    is_said_otherwise,
    nearest,
    trigger_after,
)

_BEFORE = r"(?<![0-9A-Za-z_\xff])(?<![0-9A-Za-z][.,:/-])(?<![+#])(?<![0-9] )"
_AFTER = r"(?![0-9A-Za-z_\xff]|[.,:/-][0-9A-Za-z]| [0-9]{4} )"
_GENERIC = frozenset(
    any_of(
        "identity identification national citizen resident tax taxpayer fiscal fiscale personal insurance nationality",
        "identite identidad identidade identita identitat identiteit tozsamosci",
    ).split("|")
)
_NAMED: dict[str, tuple[Callable[[str], bool], ...]] = {
    word: tested
    for words, tested in (
        ("steuer steuerid steueridentifikationsnummer idnr steuernummer", (checks.germany_tax_id,)),
        ("personnummer personnr", (checks.sweden_personal, checks.norway_birth)),
        ("samordningsnummer", (checks.sweden_personal,)),
        ("fodselsnummer", (checks.norway_birth,)),
        ("cpr", (checks.denmark_cpr,)),
        ("kennitala", (checks.iceland_kennitala,)),
        ("isikukood asmens", (checks.baltic_code,)),
        ("personas", (checks.latvia_code,)),
        ("pesel", (checks.poland_pesel,)),
        ("rodne", (checks.czech_birth,)),
        ("cnp", (checks.romania_cnp,)),
        ("egn", (checks.bulgaria_egn,)),
        ("oib", (checks.croatia_oib,)),
        ("jmbg emso embg", (checks.yugoslav_jmbg,)),
        ("amka", (checks.greece_amka,)),
        ("nif contribuinte", (checks.portugal_nif,)),
        ("bsn burgerservicenummer sofinummer", (checks.netherlands_bsn,)),
        ("rijksregisternummer niss nrn", (checks.belgium_national,)),
        ("svnr sozialversicherungsnummer versicherungsnummer", (checks.austria_insurance,)),
        ("nhs", (checks.uk_nhs,)),
        ("tckn kimlik", (checks.turkey_identity,)),
        ("snils", (checks.russia_snils,)),
        ("inn", (checks.russia_inn,)),
        ("rnokpp", (checks.ukraine_tax,)),
        ("teudat zehut", (checks.israel_identity,)),
        ("sin", (checks.canada_sin,)),
        ("tfn", (checks.australia_tfn,)),
        ("medicare", (checks.australia_medicare,)),
        ("ird", (checks.new_zealand_ird,)),
        ("aadhaar aadhar uidai", (checks.india_aadhaar,)),
        ("mynumber", (checks.japan_my_number,)),
        ("mykad", (checks.malaysia_identity,)),
        ("cpf", (checks.brazil_cpf,)),
        ("cuil cuit", (checks.argentina_cuil,)),
        ("cedula", (checks.ecuador_cedula, checks.dominican_cedula)),
    )
    for word in words.split()
}
_NAMES = _GENERIC | frozenset(_NAMED)
_LONG_NAMES = frozenset(word for word in _NAMES if len(word) >= 5)
"""Two triggers, because Hyperscan finds up to some 70 words three times as fast as 100."""


def _compact(printed: str) -> str:
    """Capitals and digits only."""
    return printed.upper() if printed.isalnum() else "".join(filter(str.isalnum, printed)).upper()


def _checked(check: Callable[[str], bool], *, doubtful: bool = False) -> Check:
    """A rule's check over the compact form. Doubtful forms are refused where a word calls them otherwise."""

    def holds(text: str, match: re.Match[str]) -> bool:
        if not check(_compact(match[0])):
            return False
        return not doubtful or not is_said_otherwise(text, match.start(), words=_NAMES)

    return holds


def _id(
    name: str, form: str, check: Callable[[str], bool], *, span: tuple[int, int], doubtful: bool = False
) -> Rule:
    """A rule for a printed form. Every form is of bounded length, so it is its own trigger: `span` is the
    least and the greatest length."""
    trigger = rf"(?:^|[^0-9A-Za-z_]){form}"
    exact = re.compile(_BEFORE + form + _AFTER)
    return Rule(
        name,
        "national_id",
        trigger,
        span[1],
        exact,
        _checked(check, doubtful=doubtful),
        strength=1,
        least=span[0],
        reach=2,
    )


_DDMMYY = r"[0-7][0-9][01][0-9][0-9]{2}"
_FORMS = (
    _id("es_dni", r"(?:[0-9]{8}|[XYZxyz]-?[0-9]{7})[- ]?[A-HJ-NP-TV-Za-hj-np-tv-z]", checks.spain_dni, span=(9, 11), doubtful=True),
    _id("it_fiscal_code", r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]", checks.italy_fiscal_code, span=(16, 16)),
    _id("it_fiscal_code_spaced", r"[A-Z]{3} [A-Z]{3} [0-9]{2}[A-EHLMPRST][0-9]{2} [A-Z][0-9]{3}[A-Z]", checks.italy_fiscal_code, span=(19, 19)),
    _id("fr_nir", r"[1-478] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3}[ -]?[0-9]{2}", checks.france_nir, span=(15, 21)),
    _id("de_tax_id", r"[1-9][0-9] [0-9]{3} [0-9]{3} [0-9]{3}", checks.germany_tax_id, span=(14, 14)),
    _id("be_national", r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}[.-][0-9]{2}", checks.belgium_national, span=(15, 15)),
    _id("ch_ahv", r"756[. ]?[0-9]{4}[. ]?[0-9]{4}[. ]?[0-9]{2}", checks.switzerland_ahv, span=(13, 16)),
    _id("se_personal", rf"(?:19|20)?[0-9]{{2}}[01][0-9][0-9][0-9][-+][0-9]{{4}}", checks.sweden_personal, span=(11, 13), doubtful=True),
    _id("no_birth", rf"{_DDMMYY} ?[0-9]{{5}}", checks.norway_birth, span=(11, 12), doubtful=True),
    _id("dk_cpr", rf"{_DDMMYY}-[0-9]{{4}}", checks.denmark_cpr_checked, span=(11, 11), doubtful=True),
    _id("fi_hetu", rf"{_DDMMYY}[-+A-FU-Y][0-9]{{3}}[0-9A-FHJ-NPR-Y]", checks.finland_hetu, span=(11, 11)),
    _id("lv_code", rf"{_DDMMYY}-[0-9]{{5}}", checks.latvia_code, span=(12, 12)),
    _id("cz_birth", r"[0-9]{2}[0-8][0-9][0-3][0-9]/[0-9]{3,4}", checks.czech_birth, span=(10, 11), doubtful=True),
    _id("ro_cnp", r"[1-9][0-9]{2}[01][0-9][0-3][0-9][0-9]{6}", checks.romania_cnp, span=(13, 13), doubtful=True),
    _id("uk_nino", r"(?:[ACEHJLMOPRSWXY][A-CEGHJ-NPR-TW-Z]|B[A-CEHJ-NPR-TW-Z]|[GKNTZ][A-CEGHJ-MPR-SW-Y])(?: ?[0-9]{2}){3} ?[A-D]", lambda n: n[:2] not in ("GB", "NK", "TN", "ZZ", "KN"), span=(9, 13)),
    _id("uk_nhs", r"[0-9]{3} [0-9]{3} [0-9]{4}", checks.uk_nhs, span=(12, 12)),
    _id("ie_pps", r"[0-9]{7}[A-W][A-IW]?", checks.ireland_pps, span=(8, 9), doubtful=True),
    _id("ru_snils", r"[0-9]{3}-[0-9]{3}-[0-9]{3}[ -][0-9]{2}", checks.russia_snils, span=(14, 14)),
    _id("za_identity", r"[0-9]{2}[01][0-9][0-3][0-9] ?[0-9]{4} ?[012][0-9][0-9]", checks.south_africa_identity, span=(13, 15), doubtful=True),
    _id("in_aadhaar", r"[2-9][0-9]{3}(?: [0-9]{4} |-[0-9]{4}-)[0-9]{4}", checks.india_aadhaar, span=(14, 14), doubtful=True),
    _id("in_pan", r"[A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z]", lambda n: n[5:9] != "0000", span=(10, 10)),
    _id("cn_resident", r"[1-9][0-9]{5}(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}[0-9Xx]", checks.china_resident, span=(18, 18)),
    _id("kr_resident", r"[0-9]{2}[01][0-9][0-3][0-9]-[1-8][0-9]{6}", checks.korea_resident, span=(14, 14), doubtful=True),
    _id("tw_identity", r"[A-Z][1289][0-9]{8}", checks.taiwan_identity, span=(10, 10), doubtful=True),
    _id("hk_identity", r"[A-Z]{1,2}[0-9]{6}\([0-9A]\)", checks.hong_kong_identity, span=(10, 11)),
    _id("sg_nric", r"[STFGM][0-9]{7}[A-Z]", checks.singapore_nric, span=(9, 9), doubtful=True),
    _id("th_identity", r"[1-9](?: [0-9]{4} [0-9]{5} [0-9]{2} [0-9]|-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9])", checks.thailand_identity, span=(17, 17)),
    _id("my_identity", r"[0-9]{2}[01][0-9][0-3][0-9]-[0-9]{2}-[0-9]{4}", checks.malaysia_identity, span=(14, 14)),
    _id("pk_identity", r"[1-7][0-9]{4}-[0-9]{7}-[1-9]", lambda n: True, span=(15, 15)),
    _id("br_cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", checks.brazil_cpf, span=(14, 14)),
    _id("cl_rut", r"(?:[1-9]?[0-9]\.[0-9]{3}\.[0-9]{3}|[1-9][0-9]{6,7})-[0-9Kk]", checks.chile_rut, span=(9, 12), doubtful=True),
    _id("ar_cuil", r"2[0347]-[0-9]{8}-[0-9]", checks.argentina_cuil, span=(13, 13)),
    _id("mx_curp", r"[A-Z][AEIOUX][A-Z]{2}[0-9]{2}[01][0-9][0-3][0-9][HMX][A-Z]{2}[B-DF-HJ-NP-TV-Z]{3}[0-9A-Z][0-9]", checks.mexico_curp, span=(18, 18)),
    _id("do_cedula", r"[0-9]{3}-[0-9]{7}-[0-9]", checks.dominican_cedula, span=(13, 13)),
    _id("ca_sin", r"[1-79][0-9]{2}-[0-9]{3}-[0-9]{3}", checks.canada_sin, span=(11, 11), doubtful=True),
)  # fmt: skip

_BARE: dict[int, tuple[Callable[[str], bool], ...]] = {
    8: (checks.new_zealand_ird,),
    9: (checks.netherlands_bsn, checks.portugal_nif, checks.israel_identity, checks.canada_sin, checks.australia_tfn, checks.new_zealand_ird),
    10: (checks.uk_nhs, checks.sweden_personal, checks.denmark_cpr, checks.iceland_kennitala, checks.czech_birth, checks.bulgaria_egn,
         checks.austria_insurance, checks.ukraine_tax, checks.ecuador_cedula, checks.australia_medicare),
    11: (checks.poland_pesel, checks.baltic_code, checks.germany_tax_id, checks.croatia_oib, checks.belgium_national, checks.norway_birth,
         checks.latvia_code, checks.greece_amka, checks.turkey_identity, checks.brazil_cpf, checks.russia_snils, checks.argentina_cuil,
         checks.dominican_cedula),
    12: (checks.japan_my_number, checks.russia_inn, checks.india_aadhaar, checks.malaysia_identity, checks.sweden_personal),
    13: (checks.yugoslav_jmbg, checks.romania_cnp, checks.south_africa_identity, checks.thailand_identity, checks.korea_resident),
}  # fmt: skip
"""Digits -> checks of the countries whose number is that long: one must hold."""

_BARE_FORM = re.compile(rf"{_BEFORE}[0-9](?:[ .-]?[0-9]){{7,12}}{_AFTER}")


def _bare(names: frozenset[str]) -> Check:
    """A check of bare digits for which one of `names` is the nearest telling word: its country's number must
    hold, or for a general word such as "national" that of any country with as many digits."""

    def holds(text: str, match: re.Match[str]) -> bool:
        digits = _compact(match[0])
        word = nearest(text, match.start(), words=_TELLING)
        if word not in names or len(set(digits)) < 3:
            return False
        tested = _NAMED.get(word, _ALL_CHECKS)
        return any(check in tested and check(digits) for check in _BARE[len(digits)])

    return holds


_ALL_CHECKS = tuple(check for tested in _BARE.values() for check in tested)
_TELLING = _NAMES | OTHER | PHONE | BIRTH
_SSN_FORM = r"(?!000|666|9[0-9]{2})[0-9]{3}%s(?!00)[0-9]{2}%s(?!0000)[0-9]{4}"
_SSN = re.compile(_BEFORE + _SSN_FORM % ("(?P<s>[- ])", "(?P=s)") + _AFTER)
_ITIN = re.compile(rf"{_BEFORE}9[0-9]{{2}}-(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])-[0-9]{{4}}{_AFTER}")
_SSN_ANY = re.compile(_BEFORE + _SSN_FORM % ("[-. ]?", "[-. ]?") + _AFTER)


def _is_ssn(text: str, match: re.Match[str]) -> bool:
    """Social Security Administration: area not 000, 666, 9xx; group not 00; serial not 0000."""
    return not is_said_otherwise(text, match.start(), words=SOCIAL_SECURITY)


def _is_ssn_in_context(text: str, match: re.Match[str]) -> bool:
    return is_said(text, match.start(), words=SOCIAL_SECURITY)


_NOT_INSIDE = r"(?:^|[^0-9A-Za-z_])"
RULES = (
    *_FORMS,
    Rule("national_number", "national_id", trigger_after(_LONG_NAMES), 1, _BARE_FORM, _bare(_LONG_NAMES), strength=2),
    Rule("national_number_short", "national_id", trigger_after(_NAMES - _LONG_NAMES), 1, _BARE_FORM, _bare(_NAMES - _LONG_NAMES), strength=2),
    Rule("us_ssn", "ssn", rf"{_NOT_INSIDE}[0-8][0-9]{{2}}[- ][0-9]{{2}}[- ][0-9]{{4}}", 11, _SSN, _is_ssn, strength=2, least=11),
    Rule("us_itin", "ssn", rf"{_NOT_INSIDE}9[0-9]{{2}}-[5-9][0-9]-[0-9]{{4}}", 11, _ITIN, _is_ssn, strength=2, least=11),
    Rule("us_ssn_in_context", "ssn", trigger_after(SOCIAL_SECURITY), 1, _SSN_ANY, _is_ssn_in_context, strength=1),
)  # fmt: skip

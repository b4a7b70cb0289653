"""National identifiers whose printed form makes a chance match rare: each is taken without its name.

A date and check digits, letters in fixed places, or its own punctuation. *Doubtful* forms, which a chance
number meets once in 20 to 1,000, are refused where a word before them says something else ("order").
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rsc.review.scanner.rules import national_checks as checks
from rsc.review.scanner.rules.borders import NOT_IN_ROW, NUMBER_AFTER, NUMBER_BEFORE, START
from rsc.review.scanner.rules.national_names import NAMES
from rsc.review.scanner.rules.rule import Check, Rule
from rsc.review.scanner.rules.words import is_said, is_said_otherwise

BEFORE = rf"{NUMBER_BEFORE}(?<!\+){NOT_IN_ROW}"
AFTER = rf"(?! [0-9]{{4}} ){NUMBER_AFTER}"


def compact(printed: str) -> str:
    """Capitals and digits only."""
    return printed.upper() if printed.isalnum() else "".join(filter(str.isalnum, printed)).upper()


def _checked(check: Callable[[str], bool], *, doubtful: bool, unchecked: bool) -> Check:
    """A rule's check over the compact form. Doubtful forms are refused where a word calls them otherwise, and
    in small letters want their name where they are doubtful or have no check digit."""

    def holds(text: str, match: re.Match[str]) -> bool:
        if not check(compact(match[0])):
            return False
        if (doubtful or unchecked) and match[0].islower() and match[0][0].isalpha():
            return is_said(text, match.start(), words=NAMES)
        return not doubtful or not is_said_otherwise(text, match, words=NAMES)

    return holds


def _id(
    name: str,
    form: str,
    check: Callable[[str], bool],
    *,
    span: tuple[int, int],
    doubtful: bool = False,
    unchecked: bool = False,
    digit: bool = True,
) -> Rule:
    """A rule for a printed form. Every form is of bounded length, so it is its own trigger: `span` is the
    least and the greatest length. Where it has capitals, small letters will do, too."""
    if digit and form != form.lower() and "a-z" not in form:
        form = f"(?:{form}|{form.lower()})"
    trigger = rf"{START}{form}"
    exact = re.compile(BEFORE + form + AFTER)
    return Rule(
        name,
        "national_id",
        trigger,
        span[1],
        exact,
        _checked(check, doubtful=doubtful, unchecked=unchecked),
        strength=1,
        least=span[0],
        reach=2,
        digit=digit,
    )


_DDMMYY = r"[0-7][0-9][01][0-9][0-9]{2}"
RULES = (
    _id(
        "es_dni",
        r"(?:[0-9]{8}|[XYZxyz]-?[0-9]{7})[- ]?[A-HJ-NP-TV-Za-hj-np-tv-z]",
        checks.spain_dni,
        span=(9, 11),
        doubtful=True,
    ),
    _id(
        "it_fiscal_code",
        r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]",
        checks.italy_fiscal_code,
        span=(16, 16),
        digit=False,  # letters may stand for them
    ),
    _id(
        "it_fiscal_code_small",
        r"[a-z]{6}[0-9]{2}[a-ehlmprst][0-9]{2}[a-z][0-9]{3}[a-z]",
        checks.italy_fiscal_code,
        span=(16, 16),
    ),
    _id(
        "it_fiscal_code_spaced",
        r"[A-Z]{3} [A-Z]{3} [0-9]{2}[A-EHLMPRST][0-9]{2} [A-Z][0-9]{3}[A-Z]",
        checks.italy_fiscal_code,
        span=(19, 19),
    ),
    _id(
        "fr_nir",
        r"[1-478] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} "
        r"?[0-9]{3}[ -]?[0-9]{2}",
        checks.france_nir,
        span=(15, 21),
    ),
    _id("de_tax_id", r"[1-9][0-9] [0-9]{3} [0-9]{3} [0-9]{3}", checks.germany_tax_id, span=(14, 14)),
    _id(
        "be_national",
        r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}[.-][0-9]{2}",
        checks.belgium_national,
        span=(15, 15),
    ),
    _id("ch_ahv", r"756[. ]?[0-9]{4}[. ]?[0-9]{4}[. ]?[0-9]{2}", checks.switzerland_ahv, span=(13, 16)),
    _id(
        "se_personal",
        r"(?:19|20)?[0-9]{2}[01][0-9][0-9][0-9][-+][0-9]{4}",
        checks.sweden_personal,
        span=(11, 13),
        doubtful=True,
    ),
    _id("no_birth", rf"{_DDMMYY} ?[0-9]{{5}}", checks.norway_birth, span=(11, 12), doubtful=True),
    _id("dk_cpr", rf"{_DDMMYY}-[0-9]{{4}}", checks.denmark_cpr_checked, span=(11, 11), doubtful=True),
    _id("fi_hetu", rf"{_DDMMYY}[-+A-FU-Y][0-9]{{3}}[0-9A-FHJ-NPR-Y]", checks.finland_hetu, span=(11, 11)),
    _id("lv_code", rf"{_DDMMYY}-[0-9]{{5}}", checks.latvia_code, span=(12, 12)),
    _id(
        "cz_birth",
        r"[0-9]{2}[0-8][0-9][0-3][0-9]/[0-9]{3,4}",
        checks.czech_birth,
        span=(10, 11),
        doubtful=True,
    ),
    _id(
        "ro_cnp",
        r"[1-9][0-9]{2}[01][0-9][0-3][0-9][0-9]{6}",
        checks.romania_cnp,
        span=(13, 13),
        doubtful=True,
    ),
    _id(
        "uk_nino",
        r"(?:[ACEHJLMOPRSWXY][A-CEGHJ-NPR-TW-Z]|B[A-CEHJ-NPR-TW-Z]|[GKNTZ][A-CEGHJ-MPR-SW-Y])(?: "
        r"?[0-9]{2}){3} ?[A-D]",
        lambda n: n[:2] not in ("GB", "NK", "TN", "ZZ", "KN"),
        span=(9, 13),
        unchecked=True,
    ),
    _id("uk_nhs", r"[0-9]{3} [0-9]{3} [0-9]{4}", checks.uk_nhs, span=(12, 12)),
    _id("ie_pps", r"[0-9]{7}[A-W][A-IW]?", checks.ireland_pps, span=(8, 9), doubtful=True),
    _id("ru_snils", r"[0-9]{3}-[0-9]{3}-[0-9]{3}[ -][0-9]{2}", checks.russia_snils, span=(14, 14)),
    _id(
        "za_identity",
        r"[0-9]{2}[01][0-9][0-3][0-9] ?[0-9]{4} ?[012][0-9][0-9]",
        checks.south_africa_identity,
        span=(13, 15),
        doubtful=True,
    ),
    _id(
        "in_aadhaar",
        r"[2-9][0-9]{3}(?: [0-9]{4} |-[0-9]{4}-)[0-9]{4}",
        checks.india_aadhaar,
        span=(14, 14),
        doubtful=True,
    ),
    _id(
        "in_pan",
        r"[A-Z]{3}[ABCFGHLJPT][A-Z][0-9]{4}[A-Z]",
        lambda n: n[5:9] != "0000",
        span=(10, 10),
        unchecked=True,
    ),
    _id(
        "cn_resident",
        r"[1-9][0-9]{5}(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}[0-9Xx]",
        checks.china_resident,
        span=(18, 18),
    ),
    _id(
        "kr_resident",
        r"[0-9]{2}[01][0-9][0-3][0-9]-[1-8][0-9]{6}",
        checks.korea_resident,
        span=(14, 14),
        doubtful=True,
    ),
    _id("tw_identity", r"[A-Z][1289][0-9]{8}", checks.taiwan_identity, span=(10, 10), doubtful=True),
    _id("hk_identity", r"[A-Z]{1,2}[0-9]{6}\([0-9A]\)", checks.hong_kong_identity, span=(10, 11)),
    _id("sg_nric", r"[STFGM][0-9]{7}[A-Z]", checks.singapore_nric, span=(9, 9), doubtful=True),
    _id(
        "th_identity",
        r"[1-9](?: [0-9]{4} [0-9]{5} [0-9]{2} [0-9]|-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9])",
        checks.thailand_identity,
        span=(17, 17),
    ),
    _id(
        "my_identity",
        r"[0-9]{2}[01][0-9][0-3][0-9]-[0-9]{2}-[0-9]{4}",
        checks.malaysia_identity,
        span=(14, 14),
    ),
    _id("pk_identity", r"[1-7][0-9]{4}-[0-9]{7}-[1-9]", lambda n: True, span=(15, 15)),
    _id("br_cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", checks.brazil_cpf, span=(14, 14)),
    _id(
        "cl_rut",
        r"(?:[1-9]?[0-9]\.[0-9]{3}\.[0-9]{3}|[1-9][0-9]{6,7})-[0-9Kk]",
        checks.chile_rut,
        span=(9, 12),
        doubtful=True,
    ),
    _id("ar_cuil", r"2[0347]-[0-9]{8}-[0-9]", checks.argentina_cuil, span=(13, 13)),
    _id(
        "mx_curp",
        r"[A-Z][AEIOUX][A-Z]{2}[0-9]{2}[01][0-9][0-3][0-9][HMX][A-Z]{2}[B-DF-HJ-NP-TV-Z]{3}[0-9A-Z][0-9]",
        checks.mexico_curp,
        span=(18, 18),
    ),
    _id("do_cedula", r"[0-9]{3}-[0-9]{7}-[0-9]", checks.dominican_cedula, span=(13, 13)),
    _id("ca_sin", r"[1-79][0-9]{2}-[0-9]{3}-[0-9]{3}", checks.canada_sin, span=(11, 11), doubtful=True),
)

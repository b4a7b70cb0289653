"""Data that only its surroundings make personal: birth dates, positions, documents named as such.

Positions: decimal degrees with at least four decimals (11 m) in pairs, fewer where they are named,
or degrees with minutes and a letter for the hemisphere (ISO 6709 annex D).
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.borders import LETTERS, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule, any_of
from rsc.review.scanner.rules.words import BIRTH, is_said, trigger_after

_MONTH = (
    r"(?:jan(?:uary|vier|uar|eiro)?|ene(?:ro)?|feb(?:ruary|ruar|rero|braio)?|fev(?:rier|ereiro)?|mar(?:ch|s"
    r"|zo|co)?|maerz|marz|mrt"
    r"|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|may|mai|mayo|mei|maggio|maio|june?|juin|juni|junio|giugno|junho"
    r"|july?|juillet|juli|julio"
    r"|luglio|julho|aug(?:ust|ustus)?|aout|ago(?:sto)?|sept?(?:ember|embre|iembre)?|set(?:tembre|embro)?"
    r"|oct(?:ober|obre|ubre)?"
    r"|okt(?:ober)?|ott(?:obre)?|out(?:ubro)?|nov(?:ember|embre|iembre|embro)?|dec(?:ember|embre)?"
    r"|dez(?:ember|embro)?|dic(?:iembre|embre)?)"
)
_ANY_MONTH = r"[A-Za-z\xff]{3,13}"
"""After a word for a birth, whatever stands between a day and a year: the months of every language."""
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_YEAR = r"(?:18[89][0-9]|19[0-9]{2}|20[0-2][0-9])"
_DATE = re.compile(
    rf"(?i)(?<![0-9A-Za-z\xff])(?<![0-9][-/.,:])(?:{_YEAR}(?P<a>[-/. "
    rf"]){_DAY}(?P=a){_DAY}(?:T[0-9:]{{4,8}}Z?)?"
    rf"|{_YEAR}\. ?{_DAY}\. ?{_DAY}|{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    rf"|{_DAY}(?:[. ]|\. )?(?![ap]m[^a-z]){_ANY_MONTH}\.? ?{_YEAR}|{_YEAR}\. {_ANY_MONTH} {_DAY}"
    rf"|{_DAY}(?P<b>[-/.]| / ){_DAY}(?P=b)(?:{_YEAR}|[0-9]{{2}})|{_DAY}\. ?{_DAY}\. ?{_YEAR}|{_DAY} {_DAY} "
    rf"{_YEAR}"
    rf"|{_DAY}(?:st|nd|rd|th|er|\.)?(?:[- ]|, ?)(?:day of |of |de |d')?{_MONTH}\.?(?:,? |[-/])(?:de |del "
    rf"|of )?(?:{_YEAR}|'?[0-9]{{2}})"
    rf"|{_MONTH}\.?[- /]{_DAY}(?:st|nd|rd|th)?(?:,? |[-/])(?:{_YEAR}|'[0-9]{{2}})|{_YEAR}[- /]{_MONTH}[- "
    rf"/]{_DAY})(?![0-9A-Za-z]|[-/][0-9])"
)
_NOT_BIRTH = frozenset(
    any_of(
        "died death deceased hired joined married expires expiry expiration due issued issue since",
        "until signed posted published updated created modified deadline visit admitted discharged",
        "appointment invoice",
    ).split("|")
)


_DOTTED_BIRTH = re.compile(r"(?i)(?<![a-z])d\. ?o\. ?b\.?[ :=]{1,3}\Z")


def _is_birth_date(text: str, match: re.Match[str]) -> bool:
    return is_said(text, match.start(), words=BIRTH, against=_NOT_BIRTH) or (
        _DOTTED_BIRTH.search(text, max(0, match.start() - 16), match.start()) is not None
    )


_LATITUDE, _LONGITUDE = r"[-+]?(?:90|[1-8]?[0-9])\.[0-9]", r"[-+]?(?:180|1[0-7][0-9]|[1-9]?[0-9])\.[0-9]"
_PAIR = re.compile(
    r"(?<![0-9A-Za-z+])(?<![^A-Za-z]-)(?<![0-9]\.)(?<!\.[0-9]{4},)(?<!\.[0-9]{4}, )"
    r"(?<![0-9]{4},)(?<![0-9]{4}, )"
    rf"{_LATITUDE}{{4,15}}\xb0?(?: ?[NS])?, ?{_LONGITUDE}{{4,15}}\xb0?(?: ?[EWO](?![A-Za-z]))?"
    r"(?![0-9A-Za-z]|\.[0-9]|, ?-?[0-9]{1,3}\.[0-9]{3})"
)
"""Beside any delimiter, but not in a row of decimals."""
_NAMED_PAIR = re.compile(
    rf"(?i)(?<![A-Za-z])lat(?:itude)?[\"']?\s?[:=]?\s?[\"']?(?P<v>{_LATITUDE}{{1,15}}"
    r"\xb0?\s?[NS]?[\"']?[,;/ ]{1,3}(?:and )?[\"']?"
    rf"(?:lon(?:g(?:itude)?)?|lng)[\"']?\s?[:=]?\s?[\"']?{_LONGITUDE}{{1,15}})(?![0-9])"
)
_NAMED_ONE = re.compile(
    rf"(?i)(?<![A-Za-z])(?:latitude|longitude|lat|lng|lon)[\"']?\s?(?:[:=]"
    rf"|is)\s?[\"']?(?P<v>{_LONGITUDE}{{3,15}})(?![0-9])"
)
_SAID_PAIR = re.compile(
    rf"(?i)(?<![A-Za-z])(?:gps|coord[a-z]{{0,12}}|koord[a-z]{{0,12}}|location|position|posizione|posicion"
    rf"|ubicacion|standort|geo|maps?|ll"
    rf"|q)[^0-9A-Za-z+-]{{1,4}}(?P<v>{_LATITUDE}{{2,15}}[;,/ ]{{1,3}}{_LONGITUDE}{{2,15}})"
    r"(?![0-9A-Za-z]|[.,;] ?-?[0-9])"
)
_LETTERED = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)(?:[NS] ?[0-9]{1,2}\.[0-9]{3,15}[,;/ ]{1,3}[EWO] "
    r"?[0-9]{1,3}\.[0-9]{3,15}(?![0-9A-Za-z])"
    r"|[0-9]{1,2}\.[0-9]{3,15} ?[NS][,;/ ]{1,3}[0-9]{1,3}\.[0-9]{3,15} ?[EWO](?![0-9A-Za-z])"
    r"|[NS] ?[0-9]{1,2}\xb0 ?[0-9]{1,2}(?:\.[0-9]{1,8})?'?(?: "
    r"?[0-9]{1,2}(?:\.[0-9]{1,6})?\")?[,;/ ]{0,3}[EWO] ?[0-9]{1,3}\xb0 ?"
    r"[0-9]{1,2}(?:\.[0-9]{1,8})?'?(?: ?[0-9]{1,2}(?:\.[0-9]{1,6})?\")?)"
)
"""The hemisphere before the number, or right behind decimal degrees."""
_MINUTES = r"(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?'\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?(?:\"|'')\s?)?)?"
_DEGREES = re.compile(
    rf"(?<![0-9.])[0-9]{{1,2}}(?:\.[0-9]{{1,8}})?\s?\xb0\s?{_MINUTES}[NS][,;/ ]{{0,3}}"
    rf"[0-9]{{1,3}}(?:\.[0-9]{{1,8}})?\s?\xb0\s?{_MINUTES}[EWO](?![A-Za-z])"
)


def _has_decimals(text: str, match: re.Match[str]) -> bool:
    """A pair of round numbers with zeros behind the point is a price or a size, two fractions are shares."""
    if all(abs(float(part)) < 1 for part in re.findall(r"[-+]?[0-9]+\.[0-9]+", match[0])):
        return False
    return any(part.rstrip("0")[-1:] != "." for part in re.findall(r"[0-9]+\.[0-9]+", match[0]))


_DOCUMENT = re.compile(
    rf"{NOT_IN_WORD}(?<![0-9][.-])(?=[A-Z-]{{0,8}}[0-9])[A-Z0-9](?:[A-Z0-9-]{{4,19}})(?<!-)"
    rf"(?![{LETTERS}@]|\.[0-9])"
)
_DOCUMENTS = any_of(
    "passports? passeport reisepass(?:nummer)? pasaporte passaporto passaporte paspoort paszport "
    "licen[cs]es? dl fuhrerschein permis permiso",
    "patente rijbewijs (?:personal)?ausweis(?:nummer)? accounts? acct routing bsb medicare policy "
    "konto(?:nummer)? compte cuenta conto",
)
_SAID_DOCUMENT = re.compile(
    rf"(?i)(?<![A-Za-z])(?:{_DOCUMENTS})(?:'?s)?(?: (?:no|nr|num|numbers?|nummer|numero|id|is|was|the|of|de"
    rf"|conduire|conducir|card|and|code))*"
    r"[^0-9A-Za-z\n]{0,4}\Z"
)


def _is_document(text: str, match: re.Match[str]) -> bool:
    """Its name stands right before it, with at most a label such as "number" between."""
    if sum(map(str.isdigit, match[0])) < 4:
        return False
    return _SAID_DOCUMENT.search(text, max(0, match.start() - 56), match.start()) is not None


_DOCUMENT_TRIGGER = rf"(?i)(?:{_DOCUMENTS})[^0-9\n]{{0,56}}[0-9]"
RULES = (
    Rule(
        "date_of_birth",
        "date_of_birth",
        trigger_after(BIRTH) + r"|(?i:o\. ?b\.?[ :=]{1,3}[A-Za-z0-9])",
        14,
        _DATE,
        _is_birth_date,
        strength=1,
        reach=28,
        digit=True,
    ),
    Rule(
        "coordinate_pair",
        "coordinates",
        r"[0-9]\.[0-9]{4,15}\xb0?(?: ?[NS])?, ?[-+]?[0-9]{1,3}\.[0-9]{4}",
        33,
        _PAIR,
        _has_decimals,
        strength=2,
        least=12,
        reach=20,
        digit=True,
    ),
    Rule(
        "coordinate_named",
        "coordinates",
        r"(?i)lat(?:itude)?[\"']?\s?[:=]?\s?[\"']?[-+]?[0-9]{1,2}\.[0-9]",
        18,
        _NAMED_PAIR,
        strength=1,
        least=6,
        reach=64,
        group="v",
        digit=True,
    ),
    Rule(
        "coordinate_alone",
        "coordinates",
        r"(?i)(?:latitude|longitude|lat|lng|lon)[\"']?\s?(?:[:=]|is)\s?[\"']?[-+]?[0-9]{1,3}\.[0-9]",
        21,
        _NAMED_ONE,
        strength=2,
        least=6,
        reach=20,
        group="v",
        digit=True,
    ),
    Rule(
        "coordinate_said",
        "coordinates",
        r"(?i)(?:gps|coord[a-z]{0,12}|koord[a-z]{0,12}|location|position|posizione|posicion|ubicacion|standort|geo"
        r"|maps?|ll|q)"
        r"[^0-9A-Za-z+-]{1,4}[-+]?[0-9]{1,2}\.[0-9]",
        36,
        _SAID_PAIR,
        strength=2,
        least=5,
        reach=40,
        group="v",
        digit=True,
    ),
    Rule(
        "coordinate_lettered",
        "coordinates",
        r"[NS] ?[0-9]{1,2}(?:\.[0-9]{3}|\xb0)|[0-9]\.[0-9]{3,15} ?[NS][,;/ ]",
        20,
        _LETTERED,
        strength=2,
        least=4,
        reach=60,
        digit=True,
    ),
    Rule(
        "coordinate_degrees",
        "coordinates",
        r"[0-9]\s?\xb0",
        13,
        _DEGREES,
        strength=1,
        least=2,
        reach=64,
        digit=True,
    ),
    Rule(
        "document_in_context",
        "id_document",
        _DOCUMENT_TRIGGER,
        9,
        _DOCUMENT,
        _is_document,
        strength=3,
        reach=24,
        digit=True,
    ),
)

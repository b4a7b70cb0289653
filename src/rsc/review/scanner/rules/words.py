"""Words before a number that say what it is. The nearest word that says anything decides.

Folded, lower case, without accents. English, German, French, Spanish, Italian, Portuguese,
Dutch, Polish and the Nordic languages, each with the word a form or a sentence would use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from rsc.review.scanner.rules.rule import any_of

DISTANCE = 56
"""Characters looked at before a number; about eight words, a form's label or half a sentence."""

SENTENCE = "."
_LETTER = re.compile(r"[A-Za-z\xff]")
_WORD = re.compile(r"[A-Za-z\xff]+")
_SENTENCE_END = re.compile(r"[.!?](?:\s|\Z)|[\n,;|\t]")
_BEHIND = 32  # characters behind a number in which it may be named: "... is my social"
_CELL_ENDS = frozenset(",;|\t\n")
_ABBREVIATIONS = frozenset(
    any_of("no nr num nos ref inv art ord pos p pp fig sec ch vol ed v ver rev").split("|")
)
_TOKEN_BACKWARDS = re.compile(r"[A-Za-z\xff]+|[0-9\x00]|\s[.!?]|[\"\n]")

PHONE = frozenset(
    any_of(
        "tel tele telephone telephones telefon telefono telefone telef tlf fon fono phone phones ph",
        "mobile mobil mob cell cellphone cellular celular cellulare movil handy portable gsm fax telefax",
        "call called calls calling ring dial text texted txt sms whatsapp signal viber hotline voicemail",
        "rufnummer telefonnummer handynummer mobilnummer telefoon telefoonnummer mobiel puhelin",
        "puhelinnumero komorka telefonu telefonszam phonenumber callback pager beeper contact reach",
        "landline switchboard extension helpline answering message messages desk office numero nummer",
    ).split("|")
)
CALLS = frozenset(
    any_of(
        "llamame llama llamar appelez appeler appelle chiamami chiamare liga ligue bel bellen zadzwon ruf",
        "anrufen arayin aramak sunati volejte volat hivj soita numarasi numara number num",
    ).split("|")
)
"""More words that say so, in a trigger and a rule of their own."""
SENTENCE_WORDS = frozenset(
    any_of(
        "text texted txt call called calls calling ring dial reach contact message messages signal answer",
        "answering desk office nummer numero portable handy extension movil born nee ne nato nata",
    ).split("|")
)
"""Words with other meanings too: "text" in an earlier sentence says nothing about a number in this one."""

BIRTH = frozenset(
    any_of(
        "dob birth birthdate birthday birthdays bday born geb geboren geburtsdatum geburtstag nee ne",
        "naissance nacido nacida nacimiento nato nata nascita nascido nascida nascimento urodzony",
        "naci nacio nac nasci nasceu urodz ur narozen narozena narozeni nar szuletesi szuletett szul "
        "nascut nascuta",
        "nasterii dogum dogumlu syntynyt rodjen rodjena rojen rojena gimes gimimo sunnipaev sundinud dzimis",
        "urodzona urodzenia fodt fodd fodselsdato fodelsedatum syntymaaika geboortedatum",
        "cumpleanos compleanno aniversario anniversaire verjaardag dateofbirth",
    ).split("|")
)
SOCIAL_SECURITY = frozenset(
    any_of(
        "ssn ssns social security socialsecurity soc sec itin tin taxpayer",
    ).split("|")
)
OTHER = frozenset(
    any_of(
        "order orders invoice part build isbn issn ean upc asin sku version ver ticket serial tracking",
        "shipment ref reference case model doi oid uid pid timestamp epoch port code commit revision rev",
        "batch lot item items product page pages bytes total price amount sum usd eur gbp euro dollars",
        "population units sold parcel booking transaction receipt po rma patent grant chapter section",
        "figure table row line error exit status status_code hash checksum md5 uuid guid size votes views",
        "likes followers downloads posted",
    ).split("|")
)


def words_before(text: str, start: int) -> Iterator[str]:
    """Lower-case words before a position, nearest first, back to the last digit or NUL, or to where the line
    or the quotation of the nearest word begins, or `DISTANCE` characters; `SENTENCE` between sentences.

    Read backwards, since the nearest word or two decide mostly. A word that the distance cuts is left out."""
    first = max(0, start - DISTANCE)
    backwards = text[first:start][::-1]
    met_word = False
    for match in _TOKEN_BACKWARDS.finditer(backwards):
        token = match[0]
        if token.isalpha():
            if match.end() == len(backwards) and first and _LETTER.match(text, first - 1):
                return
            met_word = True
            yield token[::-1].lower()
        elif len(token) == 2:
            yield SENTENCE
            met_word = True
        elif met_word or token not in '"\n':
            return


def trigger_after(words: frozenset[str]) -> str:
    """The trigger of a number that one of the words stands before: ends at the number's first digit."""
    said = "|".join(sorted(words))
    return rf"(?i)(?:^|[^a-z\xff])(?:{said})[^0-9a-z\xff][^0-9]{{0,{DISTANCE}}}[0-9]"


def nearest(text: str, start: int, *, words: frozenset[str]) -> str:
    """The nearest of `words` before a position, or nothing."""
    return next((word for word in words_before(text, start) if word in words), "")


def is_said(text: str, start: int, *, words: frozenset[str], against: frozenset[str] = OTHER) -> bool:
    """Does the nearest telling word before `start` belong to `words`? Verbs count in their sentence."""
    is_same_sentence = is_nearest_sentence = True
    for place, word in enumerate(words_before(text, start)):
        if word == SENTENCE:
            is_same_sentence = is_same_sentence and not place
            is_nearest_sentence = False
        elif word in words and (is_same_sentence or word not in SENTENCE_WORDS):
            return True
        elif word in _ABBREVIATIONS and is_same_sentence:
            is_nearest_sentence = True
        elif word in against and is_nearest_sentence:
            return False
    return False


def is_said_otherwise(text: str, match: re.Match[str], *, words: frozenset[str]) -> bool:
    """Do the three words before a match, in its sentence and on its line, call the number something else,
    and does none of `words` stand beside it?"""
    start = match.start()
    if text[start - 1 : start] in _CELL_ENDS:
        return False  # what stands before is another cell's value
    before = list(islice(_in_sentence(text, start), 6))
    if OTHER.isdisjoint(before[:3]) or not words.isdisjoint(before):
        return False
    return words.isdisjoint(_words_behind(text, match.end()))


def _in_sentence(text: str, start: int) -> Iterator[str]:
    """Words before a position on its line, back to the end of the sentence before; "no." ends none."""
    is_ending = False
    for word in words_before(text, start):
        if word == SENTENCE:
            is_ending = True
        elif is_ending and word not in _ABBREVIATIONS:
            return
        else:
            is_ending = False
            yield word


def _words_behind(text: str, end: int) -> list[str]:
    """Lower-case words behind a match, in its sentence."""
    sentence = _SENTENCE_END.split(text[end : end + _BEHIND], maxsplit=1)[0]
    return [word.lower() for word in _WORD.findall(sentence)]

"""Data that only its surroundings make personal: birth dates, positions, street addresses, documents."""

from __future__ import annotations

import re
from datetime import date

from rsc.review.rules.rule import Rule

_MONTHS = (
    r"(?:jan(?:uary|vier|uar|eiro)?|ene(?:ro)?|feb(?:ruary|ruar|rero)?|fev(?:rier)?|mar(?:ch|s|zo)?|maerz|marz|apr(?:il|ile)?|avril|abr(?:il)?"
    r"|may|mai|mayo|maggio|june?|juin|juni|junio|giugno|july?|juillet|juli|julio|luglio|aug(?:ust)?|aout|ago(?:sto)?|sep(?:t|tember|tembre|tiembre)?"
    r"|oct(?:ober|obre|ubre)?|okt(?:ober)?|ottobre|nov(?:ember|embre|iembre)?|dec(?:ember|embre)?|dez(?:ember)?|dic(?:iembre|embre)?)"
)
_DATE = (
    r"(?:(?:19|20)[0-9]{2}[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:0?[1-9]|[12][0-9]|3[01])"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-/. ] ?(?:0?[1-9]|[12][0-9]|3[01])[-/. ] ?(?:(?:19|20)[0-9]{2}|[0-9]{2})"
    rf"|(?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th|er|\.)?[- ](?:of |de )?{_MONTHS}\.?,?[- ](?:de |of )?(?:(?:19|20)[0-9]{{2}}|'?[0-9]{{2}})"
    rf"|{_MONTHS}\.?[- ](?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?,?[- ](?:(?:19|20)[0-9]{{2}}|'?[0-9]{{2}}))"
)
_BIRTH = (
    r"d\.?o\.?b\.?|birth ?dates?|birth ?days?|dates? of birth|born|b-day|bday|geb(?:\.|oren)?|geburtsdatum|geburtstag|nee? le|date de naissance"
    r"|nacid[oa]|nacimiento|nat[oa]|nascita|nascid[oa]|nascimento|urodzon[ya]|fodd|fodt|syntynyt"
)
_BORN = re.compile(
    rf"(?i)(?<![A-Za-z0-9\xff])(?:{_BIRTH})(?![A-Za-z])[^0-9\n]{{0,24}}?(?<![0-9])(?P<v>{_DATE})(?![0-9A-Za-z])"
)
_DECIMAL = r"[-+]?(?:%s)\.[0-9]{%d,12}"
_LATITUDE, _LONGITUDE = "90|[1-8]?[0-9]", "180|1[0-7][0-9]|[1-9]?[0-9]"
_PAIR = re.compile(
    r"(?<![0-9A-Za-z.,+-])"
    + _DECIMAL % (_LATITUDE, 4)
    + r"\xb0?,\s?"
    + _DECIMAL % (_LONGITUDE, 4)
    + r"\xb0?(?![0-9A-Za-z]|[.,]\s?-?[0-9])"
)
_NAMED = re.compile(
    r"(?i)(?<![A-Za-z])lat(?:itude)?[\"']?\s?[:=]?\s?(?P<v>"
    + _DECIMAL % (_LATITUDE, 2)
    + r"\xb0?\s?[NS]?[\"']?[,;/ ]{1,3}(?:and )?[\"']?(?:lon(?:g(?:itude)?)?|lng)[\"']?\s?[:=]?\s?[\"']?"
    + _DECIMAL % (_LONGITUDE, 2)
    + r")(?![0-9])"
)
_DEGREES = re.compile(
    r"(?<![0-9.])[0-9]{1,2}(?:\.[0-9]{1,8})?\s?\xb0\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?'\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?(?:\"|'')\s?)?)?[NS]"
    r"[,;/ ]{0,3}[0-9]{1,3}(?:\.[0-9]{1,8})?\s?\xb0\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?'\s?(?:[0-9]{1,2}(?:\.[0-9]{1,6})?\s?(?:\"|'')\s?)?)?[EWO](?![A-Za-z])"
)
_STREET_TYPE = (
    r"(?:street|st|avenue|ave|av|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|square|sq|terrace|ter|way|parkway|pkwy|circle|cir"
    r"|highway|hwy|close|crescent|cres|gardens|grove|mews|row|walk|trail|trl|plaza|alley|loop|pike|turnpike|crossing|heights|hill|ridge|route)"
)
_NAME = r"(?:[A-Z][A-Za-z'\xff.-]{0,24}|[0-9]{1,3}(?:st|nd|rd|th)|of|the|de|la)"
_STREET = re.compile(
    rf"(?<![0-9A-Za-z.,/$#-])[0-9]{{1,6}}[A-Za-z]?(?:[-/][0-9]{{1,4}}[A-Za-z]?)?,? (?:(?:[NSEW]|North|South|East|West|N\.|S\.|E\.|W\.) )?"
    rf"(?:{_NAME} ){{1,4}}(?i:{_STREET_TYPE})(?![A-Za-z0-9])\.?(?:,? (?i:apt|apartment|suite|ste|unit|flat|floor|fl|room|rm)\.? ?#?[0-9A-Za-z-]{{1,6}}(?![A-Za-z0-9]))?"
)
_CONTINENTAL = re.compile(
    r"(?<![A-Za-z\xff])(?:[A-Z\xff][A-Za-z\xff-]{2,24}(?:strasse|straat|gasse|weg|platz|allee|gatan|vagen|gade|vej|laan|str\.?)"
    r"|(?i:rue|via|calle|avenida|avda|plaza|piazza|corso|viale|rua|ulica|ul\.|avenue|boulevard|chemin|paseo|carrer)(?: (?:de|del|della|di|la|las|los|le|les|du|des|do|da|dos))*"
    r"(?: [A-Z\xff][A-Za-z'\xff.-]{1,24}){1,4}|[A-Z][A-Za-z\xff-]{2,24} (?:Strasse|Str\.|Allee|Platz|Weg|Gasse|ulice)),? (?:n\xb0? ?|no\.? ?|nr\.? ?)?[0-9]{1,4}(?: ?[a-zA-Z](?![A-Za-z]))?(?![0-9A-Za-z])"
)
_BOX = re.compile(
    r"(?i)(?<![A-Za-z])(?:p\.? ?o\.? ?box|post office box|postfach|apartado(?: de correos)?|casella postale|boite postale)[ :#]{1,3}[0-9]{1,7}(?![0-9])"
)
_DOCUMENT = re.compile(
    r"(?i)(?<![A-Za-z])(?:passport|passeport|reisepass|pasaporte|driver'?s?'? licen[cs]e|driving licen[cs]e|licen[cs]e|fuhrerschein|permis de conduire"
    r"|id card|identity card|personalausweis|bank account|account|acct|routing|sort code|medicare|policy|member)"
    r"(?: (?:number|no\.?|num|nr|id|#))?[^0-9A-Za-z\n]{1,4}(?:is |number |no\.? )?(?P<v>(?=[A-Z-]{0,6}[0-9])[A-Z0-9][A-Z0-9-]{5,19})(?![0-9A-Za-z])"
)


def _is_past(text: str, match: re.Match[str]) -> bool:
    years = re.findall(r"(?<![0-9])(?:19|20)[0-9]{2}", match["v"])
    return not years or 1890 <= int(years[0]) <= date.max.year


def _is_position(text: str, match: re.Match[str]) -> bool:
    return any(character not in "0.,+- \xb0" for character in match[0])


RULES = (
    Rule("date_of_birth", "date_of_birth", rf"(?i)(?:{_BIRTH})[^0-9\n]{{0,36}}[0-9]", 64, _BORN, strength=1),
    Rule("coordinate_pair", "coordinates", r"[0-9]\.[0-9]{4,12}\xb0?,\s?[-+]?[0-9]{1,3}\.[0-9]{4}", 40, _PAIR, _is_position, strength=2),
    Rule("coordinate_named", "coordinates", r"(?i)lat(?:itude)?[\"']?\s?[:=]?\s?[-+]?[0-9]{1,2}\.[0-9]", 18, _NAMED, strength=1),
    Rule("coordinate_degrees", "coordinates", r"[0-9]\s?\xb0", 20, _DEGREES, strength=1),
    Rule("street_numbered", "street_address", rf"(?i)[0-9][A-Za-z]?,? (?:[NSEW][A-Za-z.]{{0,5}} )?(?:[A-Za-z0-9'\xff.-]{{1,26}} ){{1,4}}{_STREET_TYPE}", 150, _STREET, reach=200),
    Rule("street_continental", "street_address", r"(?i)(?:strasse|straat|gasse|weg|platz|allee|gatan|vagen|gade|vej|laan|str\.?|rue|via|calle|avenida|avda|plaza|piazza|corso|viale|rua|ulica"
         r"|ul\.|avenue|boulevard|chemin|paseo|carrer|ulice)[^0-9\n]{1,110}[0-9]", 200, _CONTINENTAL, reach=300),
    Rule("post_box", "street_address", r"(?i)(?:box|fach|apartado|postale)[ :#A-Za-z]{1,16}[0-9]", 40, _BOX, strength=2),
    Rule("document_in_context", "id_document", r"(?i)(?:pass|pasaporte|licen|fuhrerschein|permis|card|ausweis|account|acct|routing|sort code|medicare|policy|member)", 40, _DOCUMENT, strength=3),
)  # fmt: skip

"""Street addresses that carry a house number or a post box.

An address is found by its form: a number before a capitalised name and a word for a kind of street
(English), or such a word and a name before the number (most of Europe).

Not covered: addresses without a number, without a word for the street, or in other scripts.
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.address_parts import (
    AU_STATES,
    BREAK,
    BRITISH,
    CANADIAN,
    CAPITAL,
    IRISH,
    NAME,
    REST,
    UNIT_WORDS,
    US_STATES,
    WORD,
)
from rsc.review.scanner.rules.borders import HOUSE_BEFORE, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule, any_of

KINDS = any_of(
    "street st avenue ave av road rd boulevard blvd lane ln drive dr court ct place pl square sq terrace "
    "ter way parkway pkwy circle cir",
    "highway hwy close crescent cres gardens gdns grove mews row walk trail trl plaza plz alley loop pike "
    "turnpike crossing xing heights hts",
    "hill hills ridge route quay wharf esplanade parade bypass expressway freeway causeway path run glen "
    "cove point view vista",
)
RARER_KINDS = "|".join(
    rf"{word.capitalize()}s?"
    for word in any_of(
        "alley anex arcade bayou beach bend bluff bottom branch bridge brook burg camp canyon cape center "
        "centre cliff",
        "club common corner course creek crest crossroad curve dale dam divide estate extension fall ferry "
        "field flat",
        "ford forest forge fork fort garden gateway green harbor harbour haven hollow inlet island isle "
        "junction key",
        "knoll lake land landing light loaf lock lodge mall manor meadow mill mission motorway mount "
        "mountain neck",
        "orchard oval overpass park pass passage pine plain port prairie radial ramp ranch rapid rest "
        "river rue shoal",
        "shore skyway spring spur station stravenue stream summit throughway trace track trafficway tunnel "
        "underpass",
        "union valley viaduct village ville wall well chase copse drove end fold gate grange lea nook "
        "paddock rise",
        "side vale wynd yard brae strand top wade dell reach retreat follow frontage chowk marg nagar",
        "street avenue road square court drive circle terrace view vista glen grove heights way walk light",
        "turnpike rue parkway ridge lane boulevard plaza alley crescent",
    ).split("|")
)
"""The rest of the street suffixes of USPS Publication 28, appendix C1, and of British and Indian use: words
of every day, so the number must be no count and no year, or something must say that this is an address."""
_NAME = r"(?:[A-Z\xff][A-Za-z'\xff.-]{0,24}|[0-9]{1,3}(?:st|nd|rd|th)|of|the|de|la)"
_NUMBERED = re.compile(
    rf"{HOUSE_BEFORE}(?:[0-9]{{1,6}} )?[0-9]{{1,6}}[A-Za-z]?(?:[-/][0-9]{{1,5}}[A-Za-z]?)?,? (?:(?:[NSEW]"
    r"|North|South|East|West|N\.|S\.|E\.|W\.|NE|NW|SE|SW) )?"
    rf"(?:{_NAME} ){{1,4}}(?i:{KINDS})(?![A-Za-z0-9\xff])\.?(?: (?:[NS][EW]?"
    rf"|[EW])(?![A-Za-z0-9]))?{REST}"
)
_RARER = re.compile(
    rf"{HOUSE_BEFORE}(?P<n>[0-9]{{1,6}})[A-Za-z]?(?:[-/][0-9]{{1,5}}[A-Za-z]?)? (?:{_NAME} ){{1,3}}"
    rf"(?:{RARER_KINDS})(?![A-Za-z0-9\xff]){REST}"
)
_NOT_STREETS = re.compile(
    r"(?i)^[0-9 ]+ (?:(?:of|the|de|la|hours?|days?|years?|minutes?|people|times|percent) "
    r"|(?:supreme|district|high|circuit|federal|appeals?|superior|county) court)"
)
_SUFFIXED = any_of(
    "strasse straat gasse weg platz allee gatan vagen gade vej laan str\\. strase katu tie veien gata "
    "plein kade singel gracht damm ufer ring steeg baan lei dreef dijk hof stigen torget backen kuja polku "
    "bulevardi vegen str\xffde stien pad hofje boulevard vollen bakken haugen toppen stubben lokka jordet "
    "sletta grenda "
    "berget svingen trakka skogen kroken ekra faret lunden tunet strade grand platsen leden liden slingan "
    "udden kajen"
)
_PREFIXES = any_of(
    "rue via calle avenida avda avda\\. c/ plaza piazza corso viale rua ulica ul\\. avenue av\\. boulevard "
    "bd chemin paseo carrer largo vicolo strada str\\.",
    "allee impasse quai travessa praca alameda camino ronda aleja al\\. plac pl\\. callejon pasaje pasadizo "
    "glorieta cuesta acceso rambla carretera travesia boulevard bulevardul b-dul soseaua sos\\. calea aleea "
    "intrarea piata borgo contrada rotonda incrocio praceta estrada rodovia esplanada beco urbanizacion "
    "diagonal av avda os\\. jalan jl\\. jln\\. gang gg\\. privada circuito calzada andador cerrada "
    "prolongacion",
    "periferico retorno corredor peatonal viaducto canale stretto nucleo patio viela ladeira loteamento "
    "residencial",
    "conjunto recanto setor sitio trecho trevo vereda chacara condominio fazenda lagoa morro drumul splaiul",
)
_KINDS_BEHIND = any_of(
    "utca korut setany ter ulica ulice cesta trg namesti nam\\. trida tr\\. nabrezi sokak sok\\. sk\\.",
    "caddesi cad\\. cd\\. bulvari mahallesi mah\\. iela pst\\. mnt Alle vei veg vag gata katu gade vej",
    "puiestee Sokak Caddesi Bulvari Mahallesi Sok\\. Sk\\. Cad\\. Cd\\. Mah\\.",
)
"""Words for a street that stand by themselves between its name and the number."""
_NUMBER_SIGN = r"(?i:n\xb0? ?|no[.:]? ?|nr\.? ?|num\. ?|kbr\. ?)?"
_BEHIND_NUMBER = (
    rf",? {_NUMBER_SIGN}[0-9]{{1,4}}(?: ?[a-zA-Z](?![A-Za-z0-9])|[-/][0-9]{{1,3}})?(?![0-9A-Za-z])"
)
_SUFFIX_BEHIND = re.compile(
    rf"(?<![A-Za-z0-9\xff])(?:[0-9]{{1,6}} )?(?:[A-Z]\. ?){{0,3}}"
    rf"(?:(?P<n>[A-Z\xff][A-Za-z\xff-]{{2,28}}(?:{_SUFFIXED}))|[A-Z][A-Za-z\xff-]{{2,40}}[ -]"
    rf"(?:Strasse|Strase|Str\.|Allee|Platz|Weg|Gasse|Ring|Damm|Ufer)){_BEHIND_NUMBER}{REST}"
)
CASED_PREFIXES = "|".join(f"{word}|{word.capitalize()}|{word.upper()}" for word in _PREFIXES.split("|"))
"""Literals without `(?i)`, which every engine tells apart by their first letter."""
_ARTICLES = "(?:(?:de|del|della|dei|di|la|las|los|le|les|du|des|do|da|dos|d') ?){0,2}"
_PREFIXED = rf"(?:{CASED_PREFIXES}) {_ARTICLES}[A-Z\xff]"
_PREFIX_BEHIND = re.compile(
    rf"(?<![A-Za-z0-9\xff])(?:[0-9]{{1,6}} )?{_PREFIXED}[A-Za-z'\xff.-]{{1,24}}"
    rf"(?: [A-Za-z\xff][A-Za-z'\xff.-]{{1,24}}){{0,3}}{_BEHIND_NUMBER}{REST}"
)
_BEFORE = re.compile(
    rf"{HOUSE_BEFORE}(?:[0-9]{{1,6}} )?[0-9]{{1,5}}(?:/[0-9]{{1,4}}){{0,3}}(?: ?(?:bis|ter|[a-d]))?,? "
    r"(?:[Rr]ue|avenue"
    r"|av\.|boulevard|bd|chemin|impasse|quai|allee|place|cours|route|passage|square|montee|rang|cote"
    r"|croissant|ruelle"
    r"|sentier|[Dd]uong|[Pp]ho)"
    r" (?:(?:de|du|des|la|le|les|l'|d') ?){0,3}[A-Z\xff][A-Za-z'\xff-]{1,24}(?:[ "
    r"-][A-Z\xff][A-Za-z'\xff-]{1,24}){0,3}" + REST
)
_STRONG_SUFFIX = "strasse|straat|gatan|katu|vej|weg|gasse|allee|laan|utca"
_NUMBER_IN_FRONT = re.compile(
    rf"{HOUSE_BEFORE}[0-9]{{1,6}},? (?:{_PREFIXED}[A-Za-z'\xff.-]{{1,24}}"
    rf"(?: (?:(?:de|da|do|di) )?[{CAPITAL}][A-Za-z'\xff.-]{{1,24}}){{0,3}}"
    rf"|[{CAPITAL}][A-Za-z\xff-]{{2,13}}(?:{_STRONG_SUFFIX})(?![A-Za-z\xff])){REST}"
)
"""A foreign street as people write it who put numbers first."""
_KIND_BEHIND = re.compile(
    rf"(?<![A-Za-z0-9\xff])(?:[0-9]{{1,6}} )?{WORD}(?: {WORD}){{0,3}} (?:{_KINDS_BEHIND}),? "
    rf"{_NUMBER_SIGN}[0-9]{{1,4}}(?:[-/][0-9]{{1,3}}| ?[a-zA-Z](?![A-Za-z0-9]))?\.?(?![0-9A-Za-z])" + REST
)
_FRONT_WORDS = any_of(
    "Apt Unit Flat Suite Studio Level Shop Lot Apartment APT UNIT FLAT SUITE apt unit flat suite",
)
_UNIT_IN_FRONT = rf"(?:{_FRONT_WORDS})\.? #?[0-9]{{1,4}}[A-Za-z]?"
_AT_NUMBER = (
    rf"(?:{_UNIT_IN_FRONT}[,\s]{{1,4}})?(?:[0-9]{{1,6}} )?[0-9]{{1,6}}[A-Za-z]?(?:[-/][0-9]{{1,5}}[A-Za-z]?)?"
    rf"[, \n]{{1,2}}{NAME}(?: {WORD}){{0,2}}"
)
_BY_NAME = (
    rf"(?:[0-9]{{1,6}} )?{NAME}(?: [a-z\xff]{{2,12}})?,? "
    rf"(?:{_NUMBER_SIGN}[0-9]{{1,5}}(?: ?[a-zA-Z](?![A-Za-z0-9])|[-/][0-9]{{1,4}})?\.?|[sS]/[nN])"
)
_UNNUMBERED = (
    rf"(?:{_UNIT_IN_FRONT}{BREAK}{NAME}|(?:{CASED_PREFIXES}) {NAME}"
    rf"|(?:{WORD} ){{1,4}}(?i:{KINDS}|{RARER_KINDS})(?={BREAK}(?i:{UNIT_WORDS})))"
)
_STREET = rf"{HOUSE_BEFORE}(?P<s>{_AT_NUMBER}|{_BY_NAME}|{_UNNUMBERED})"
_UNIT_TRIGGER = rf"(?i)[,\s](?:{UNIT_WORDS})\.? ?#?[0-9]"
_WITH_UNIT = re.compile(rf"{_STREET}(?=[,\s]{{1,8}}(?i:{UNIT_WORDS})\.? ?#?[0-9]){REST}")
_POSTCODE_TRIGGER = (
    r"[,\n][> ]{0,6}(?:[A-Z]{1,3}-)?(?:[0-9]{4,6}|[0-9]{2}-[0-9]{3}|[0-9]{3} [0-9]{2}|[0-9]{4}-[0-9]{3})"
    r"(?:,?[ \n]{1,2}[A-Z'\xff]|[A-Z]{2}[ \n])"
    rf"|[ \n](?:{US_STATES}),?[ \n]{{1,3}}[0-9]{{5}}|[ \n](?:{AU_STATES}),?[ \n]{{1,3}}[0-9]{{4}}"
    r"|[A-Za-z\xff],?[ \n-][0-9]{6}(?:[^0-9A-Za-z]|$)|[,\n][> ]{0,8}[A-Z\xff][A-Za-z\xff ]{2,30},? [0-9]{4}"
    rf"|[ \n](?:{BRITISH}|{CANADIAN})|[ \n]{IRISH}"
)
_LEAD = 130
_IS_POSTCODE_TRIGGER = re.compile(_POSTCODE_TRIGGER)
_IS_UNIT_TRIGGER = re.compile(_UNIT_TRIGGER)
_WITH_POSTCODE = re.compile(rf"{_STREET}(?={BREAK}|-){REST}")
_CONTEXT = any_of(
    "address lives? lived living resid(?:e|es|ing) located ship(?:ped|ping)? deliver(?:ed|y)? mail(?:ed)? "
    "send sent "
    "billed parcel package adresse adres adresa indirizzo direccion endereco wohn(?:e|t|haft) bor habite "
    "moved return off home billing"
)
_SAID = re.compile(
    rf"(?i)(?<![A-Za-z])(?:{_CONTEXT})(?: (?:address|is|are|it|them|now|to|at|in|here|me|you|the|one|with"
    rf"|was|from|parcel|package|order|letter|card|bill|in|der|na|en|em|a|au"
    rf"|i)){{0,5}}[\"']?[ :=,\n\t]{{1,6}}[\"']?\Z"
)
_AFTER_CONTEXT = re.compile(
    rf"{HOUSE_BEFORE}[0-9]{{1,6}}[A-Za-z]?,? (?:(?:[A-Z\xff][A-Za-z'\xff.-]{{1,24}}|of|de|del|la|le"
    rf"|des|du|van|der|von)\s){{0,3}}"
    rf"[A-Z\xff][A-Za-z'\xff.-]{{2,24}}(?: [0-9]{{1,4}}[a-z]?(?![0-9A-Za-z]))?{REST}"
)
_NAMED_IN_CONTEXT = re.compile(
    rf"{NOT_IN_WORD}(?P<s>{NAME},? {_NUMBER_SIGN}(?!(?:19|20)[0-9]{{2}}(?![0-9]))[0-9]{{1,5}})"
    rf"(?: ?[a-zA-Z](?![A-Za-z0-9])|[a-z]?/[0-9]{{1,4}})?(?![0-9A-Za-z:%]|[.,][0-9]){REST}"
)
_LATIN_AMERICAN = re.compile(
    r"(?<![0-9A-Za-z\xff])(?:(?i:calle|cl|carrera|cra|kra?|transversal|tv|diagonal|diag?|dg|avenida|av"
    r"|avda|blv|circular|autopista"
    r"|pasaje)\.?)(?: (?:calle|carrera|cra\.?|cl\.?))? [0-9]{1,3} ?[A-Z]{0,2}\xb0?(?: ?[Bb]is)?(?: "
    r"[A-Z](?![A-Za-z]))?"
    r"(?: (?:[Ss]ur|[Nn]orte|[Ee]ste|[Oo]este))? ?(?:#|N[o\xb0]?\.?|No\.?) ?[0-9]{1,4} ?[A-Z]{0,2}(?: ?- "
    r"?[0-9]{1,3})?"
    rf"(?: (?:Sur|Norte|Este|Oeste))?(?![0-9A-Za-z]){REST}"
)
"""Streets that have numbers themselves: "Calle 7 N 810", "Carrera 18F Bis # 9-2" (Colombia: Decree 1170)."""
_FLEET = r"(?:apo|fpo|dpo),? (?:aa|ae|ap) [0-9]{5}"
_BOX = re.compile(
    r"(?i)(?<![A-Za-z])(?:(?:p\.? ?o\.? ?box|post office box|postfach|postbus|apartado(?: de correos)?"
    r"|casella postale|boite postale|caixa postal)[ :#]{1,3}[0-9]{1,7}"
    rf"|(?:psc|cmr|unit) [0-9]{{3,5}},? box [0-9]{{1,5}}(?:[, \n]{{1,3}}{_FLEET})?)(?![0-9])(?-i:{REST})"
)
_SHIP = re.compile(
    rf"(?i)(?<![A-Za-z])(?:uss|usns|usnv|uscgc|hms|hmcs) [a-z\xff'. -]{{2,40}}[, \n]{{1,3}}{_FLEET}(?![0-9])"
)


_TO_NUMBER = 60  # characters from a word of `_CONTEXT` to the number behind a name
_DIGIT = re.compile("[0-9]")


def _is_said_address(text: str, match: re.Match[str]) -> bool:
    return _SAID.search(text, max(0, match.start() - 48), match.start()) is not None


_NO_STREET = re.compile(
    r"(?i)(?:chapter|section|figure|fig|table|page|pages|version|article|step|part|day|week|volume|vol|issue|"
    r"windows|iphone|level|grade|class|round|lot|item|order|invoice|no|number|type|model|line|appendix|"
    r"january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|"
    r"jun|jul|aug|sep|sept|oct|nov|dec|monday|tuesday|wednesday|thursday|friday|saturday|sunday|in|on|at)"
    r"[.,]? [0-9]{1,5}[a-z]?\Z"
)
_YEARS = re.compile(r"(?:19|20)[0-9]{2}[-, ]")
_LOWER = re.compile(r"[a-z\xff]")
_YEAR = re.compile(r"(?<![0-9-])(?:19|20)[0-9]{2}(?![0-9-])")


_NOT_SUFFIXED = re.compile(
    r"(?i)(?:(?:think|launch|note|key|track|heli|game|touch|mouse|scratch)pad|brigade|renegade|[aeiou]ring"
    r"|(?<!o)(?<!we)string|spring|(?<!n)tie)(?: |,|\Z)"
)
_AMOUNT = re.compile(
    r"(?i) (?:yrs?|years?|months?|weeks?|days?|hours?|min|minutes?|times|people|percent|dollars?)(?![a-z])"
)
_ZERO = re.compile(r"[, ]{1,2}0(?![0-9])")


def _is_behind(text: str, match: re.Match[str]) -> bool:
    """Not "Engineering 101", "Katie 5", "ByteString, 0", "Terror Ring 10 years"."""
    if _AMOUNT.match(text, match.end()):
        return False
    return match["n"] is None or (
        _NOT_SUFFIXED.search(match["n"]) is None and _ZERO.match(text, match.end("n")) is None
    )


def _is_with_unit(text: str, match: re.Match[str]) -> bool:
    unit = _IS_UNIT_TRIGGER.search(text, match.end("s"))
    return unit is not None and unit.end() - match.start() <= _LEAD and _NO_STREET.search(match["s"]) is None


def _is_with_postcode(text: str, match: re.Match[str]) -> bool:
    """A street's name and number could be many things, so the lines behind it must have a postcode. Four
    digits that could be a year count only on a line of their own, behind a number ("March 12, 2020")."""
    street = match["s"]
    if _YEARS.match(street) or not _LOWER.search(street) or _NO_STREET.search(street):
        return False
    code = _IS_POSTCODE_TRIGGER.search(text, match.end("s"))
    if code is None or code.start() >= match.end() or code.end() - match.start() > _LEAD:
        return False
    is_year = _YEAR.search(text[code.start() : code.end() + 1]) is not None
    return not is_year or (code[0][0] == "\n" and street[-1].isdigit())


def _is_rarer(text: str, match: re.Match[str]) -> bool:
    """Three digits that are no year, or said to be an address, or with more of one behind the street."""
    if _NOT_STREETS.match(match[0]):
        return False
    is_house = len(match["n"]) >= 3 and _YEAR.fullmatch(match["n"]) is None and match["n"][-2:] != "00"
    return is_house or "," in match[0] or _is_said_address(text, match)


def _is_named_in_context(text: str, match: re.Match[str]) -> bool:
    """The number stands at most `_TO_NUMBER` behind the word that says so."""
    if _NO_STREET.search(match["s"]) is not None:
        return False
    said = _SAID.search(text, max(0, match.start() - 48), match.start())
    return said is not None and _DIGIT.search(text, said.end(), said.start() + _TO_NUMBER) is not None


def _is_street(text: str, match: re.Match[str]) -> bool:
    return _NOT_STREETS.match(match[0]) is None


RULES = (
    Rule(
        "street_numbered",
        "street_address",
        rf"(?i)[0-9][A-Za-z]?,? (?:[A-Za-z0-9'\xff.-]{{1,26}} ){{1,5}}(?:{KINDS})",
        180,
        _NUMBERED,
        _is_street,
        least=6,
        head=re.compile(r"[0-9](?<![0-9A-Za-z$][0-9])"),  # a set first: three times as fast to find
    ),
    Rule(
        "street_rarer",
        "street_address",
        rf"[0-9][A-Za-z]? (?:[A-Za-z0-9'\xff.-]{{1,26}} ){{1,3}}(?:{RARER_KINDS.replace('s?', '')})",
        120,
        _RARER,
        _is_rarer,
        least=6,
        reach=3,
    ),
    Rule(
        "street_named_in_context",
        "street_address",
        rf"(?i:{_CONTEXT})[^0-9]{{0,{_TO_NUMBER - 2}}}[{CAPITAL}][^0-9]{{0,{_TO_NUMBER - 2}}}[0-9]",
        62,
        _NAMED_IN_CONTEXT,
        _is_named_in_context,
        least=3,
        reach=8,
        digit=True,
    ),
    Rule(
        "street_with_two_numbers",
        "street_address",
        r"(?i)[a-z]\.? [0-9]{1,3} ?[A-Z]{0,2}\xb0?(?: ?bis)?(?: [A-Z])?(?: (?:sur|norte|este|oeste))? "
        r"?(?:#|N[o\xb0]?\.?) ?[0-9]",
        44,
        _LATIN_AMERICAN,
        least=5,
        reach=10,
        digit=True,
    ),
    Rule(
        "street_suffix_behind",
        "street_address",
        rf"(?i)(?:{_SUFFIXED}),? {_NUMBER_SIGN}[0-9]",
        75,
        _SUFFIX_BEHIND,
        _is_behind,
        least=5,
        reach=5,
        digit=True,
    ),
    Rule(
        "street_prefix_behind",
        "street_address",
        rf"(?:^|[^A-Za-z0-9\xff]){_PREFIXED}",
        40,
        _PREFIX_BEHIND,
        least=4,
        reach=115,
        digit=True,
    ),
    Rule(
        "street_before",
        "street_address",
        r"[0-9](?: ?(?:bis|ter|[a-d]))?,? (?:[Rr]ue|avenue|av\.|boulevard|bd|chemin|impasse|quai|allee|place"
        r"|cours|route|passage|square|montee|rang|cote|croissant|ruelle|sentier|[Dd]uong|[Pp]ho) ",
        48,
        _BEFORE,
        least=4,
        reach=40,
        digit=True,
    ),
    Rule(
        "street_number_in_front",
        "street_address",
        rf"[0-9],? (?:(?:{CASED_PREFIXES}) |[{CAPITAL}][A-Za-z\xff-]{{2,13}}(?:{_STRONG_SUFFIX}))",
        70,
        _NUMBER_IN_FRONT,
        least=5,
        reach=64,
        digit=True,
    ),
    Rule(
        "street_kind_behind",
        "street_address",
        rf"[ ](?:{_KINDS_BEHIND}),? {_NUMBER_SIGN}[0-9]",
        135,
        _KIND_BEHIND,
        least=5,
        reach=7,
        digit=True,
    ),
    Rule(
        "street_with_unit",
        "street_address",
        _UNIT_TRIGGER,
        _LEAD,
        _WITH_UNIT,
        _is_with_unit,
        least=8,
        reach=2,
        digit=True,
    ),
    Rule(
        "street_with_postcode",
        "street_address",
        _POSTCODE_TRIGGER,
        _LEAD,
        _WITH_POSTCODE,
        _is_with_postcode,
        least=9,
        reach=8,
        digit=True,
    ),
    Rule(
        "street_in_context",
        "street_address",
        rf"(?i)(?:{_CONTEXT})[^0-9]{{1,48}}[0-9]",
        1,
        _AFTER_CONTEXT,
        _is_said_address,
        digit=True,
    ),
    Rule(
        "post_of_a_ship",
        "street_address",
        rf"(?i){_FLEET}",
        68,
        _SHIP,
        strength=2,
        least=18,
        reach=1,
        digit=True,
    ),
    Rule(
        "post_box",
        "street_address",
        r"(?i)(?:box|fach|bus|apartado|correos|postale|postal)[ :#]{1,3}[0-9]",
        27,
        _BOX,
        strength=2,
        least=6,
        reach=16,
        digit=True,
    ),
)

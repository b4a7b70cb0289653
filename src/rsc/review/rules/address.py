"""Street addresses that carry a house number or a post box.

An address is found by its form: a number before a capitalised name and a word for a kind of street
(English), or such a word and a name before the number (most of Europe).

Not covered: addresses without a number, without a word for the street, or in other scripts.
"""

from __future__ import annotations

import re

from rsc.review.rules.rule import Rule, any_of

_KINDS = any_of(
    "street st avenue ave av road rd boulevard blvd lane ln drive dr court ct place pl square sq terrace "
    "ter way parkway pkwy circle cir",
    "highway hwy close crescent cres gardens gdns grove mews row walk trail trl plaza plz alley loop pike "
    "turnpike crossing xing heights hts",
    "hill hills ridge route quay wharf esplanade parade bypass expressway freeway causeway path run glen "
    "cove point view vista",
)
_NAME = r"(?:[A-Z\xff][A-Za-z'\xff.-]{0,24}|[0-9]{1,3}(?:st|nd|rd|th)|of|the|de|la)"
_UNIT = (
    r"(?:,?\s(?i:apt|apartment|suite|ste|unit|flat|floor|fl|room|rm|bldg"
    r"|building)\.?\s?#?[0-9A-Za-z-]{1,6}(?![A-Za-z0-9])|,?\s#\s?[0-9]{1,5})?"
)
_TOWN = r"[A-Z\xff][A-Za-z'\xff.-]{1,24}(?: [A-Z\xff][A-Za-z'\xff.-]{1,24}){0,2}"
_POSTCODE = (
    r"(?:[0-9]{5}(?:-[0-9]{4})?|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}|[A-Z][0-9][A-Z] "
    r"?[0-9][A-Z][0-9]|[0-9]{4,6})(?![0-9A-Za-z])"
)
_REST = (
    rf"(?:,?\s{{1,2}}(?:{_TOWN},?\s{{1,2}})?(?:[A-Z]{{2,3}},?\s)?{_POSTCODE}(?:,?\s{_TOWN})?"
    rf"|,\s{_TOWN},\s[A-Z]{{2}}(?![A-Za-z]))?"
)
"""Town and postcode, in either order, where they follow at once."""
_NUMBERED = re.compile(
    r"(?<![0-9A-Za-z.,/$#:-])[0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5}[A-Za-z]?)?,? (?:(?:[NSEW]|North|South"
    r"|East|West|N\.|S\.|E\.|W\.|NE|NW|SE|SW) )?"
    rf"(?:{_NAME} ){{1,4}}(?i:{_KINDS})(?![A-Za-z0-9\xff])\.?(?: (?:[NS][EW]?"
    rf"|[EW])(?![A-Za-z]))?{_UNIT}{_REST}"
)
_NOT_STREETS = re.compile(r"(?i)^[0-9]+ (?:of|the|de|la|hours?|days?|years?|minutes?|people|times|percent) ")
_SUFFIXED = any_of(
    "strasse straat gasse weg platz allee gatan vagen gade vej laan str\\. strase katu tie veien gata "
    "plein kade singel gracht damm ufer ring"
)
_PREFIXES = any_of(
    "rue via calle avenida avda avda\\. c/ plaza piazza corso viale rua ulica ul\\. avenue av\\. boulevard "
    "bd chemin paseo carrer largo vicolo strada",
    "allee impasse quai travessa praca alameda camino ronda aleja al\\. plac pl\\.",
)
_BEHIND = re.compile(
    rf"(?<![A-Za-z0-9\xff])(?:[A-Z\xff][A-Za-z\xff-]{{2,28}}(?:{_SUFFIXED})|[A-Z][A-Za-z\xff-]{{2,24}} "
    rf"(?:Strasse|Str\.|Allee|Platz|Weg|Gasse|Ring|ulice)"
    rf"|(?i:{_PREFIXES}) (?:(?:de|del|della|dei|di|la|las|los|le|les|du|des|do|da|dos|d') "
    rf"?){{0,2}}[A-Z\xff][A-Za-z'\xff.-]{{1,24}}(?: [A-Za-z\xff][A-Za-z'\xff.-]{{1,24}}){{0,3}})"
    r",? (?:n\xb0? ?|no\.? ?|nr\.? ?|num\. ?)?[0-9]{1,4}(?: ?[a-zA-Z](?![A-Za-z0-9])"
    r"|[-/][0-9]{1,3})?(?![0-9A-Za-z])" + _REST
)
_BEFORE = re.compile(
    r"(?<![0-9A-Za-z.,/$#:-])[0-9]{1,4}(?: ?(?:bis|ter|[a-d]))?,? (?:rue|avenue|av\.|boulevard|bd|chemin"
    r"|impasse|quai|allee|place|cours|route|passage|square)"
    r" (?:(?:de|du|des|la|le|les|l'|d') ?){0,3}[A-Z\xff][A-Za-z'\xff-]{1,24}(?:[ "
    r"-][A-Z\xff][A-Za-z'\xff-]{1,24}){0,3}" + _REST
)
_CONTEXT = any_of(
    "address lives? living resid(?:e|es|ing) located ship(?:ped|ping)? deliver(?:ed|y)? mail(?:ed)? send "
    "moved return off home billing"
)
_SAID = re.compile(
    rf"(?i)(?<![A-Za-z])(?:{_CONTEXT})(?: (?:address|is|are|it|them|now|to|at|in|here|me|you|the|one|with"
    rf"|was|from)){{0,4}}[ :=,\n\t]{{1,6}}\Z"
)
_AFTER_CONTEXT = re.compile(
    rf"(?<![0-9A-Za-z.,/$#-])[0-9]{{1,6}}[A-Za-z]?,? (?:(?:[A-Z\xff][A-Za-z'\xff.-]{{1,24}}|of|de|del|la|le"
    rf"|des|du|van|der|von)\s){{0,3}}"
    rf"[A-Z\xff][A-Za-z'\xff.-]{{2,24}}(?: [0-9]{{1,4}}[a-z]?(?![0-9A-Za-z]))?{_UNIT}{_REST}"
)
_BOX = re.compile(
    r"(?i)(?<![A-Za-z])(?:(?:p\.? ?o\.? ?box|post office box|postfach|postbus|apartado(?: de correos)?"
    r"|casella postale|boite postale|caixa postal)"
    r"[ :#]{1,3}[0-9]{1,7}|(?:psc|cmr|unit) [0-9]{3,5},? box [0-9]{1,5}(?:[, \n]{1,3}(?:apo|fpo|dpo),? "
    r"(?:aa|ae|ap) [0-9]{5})?)(?![0-9])"
)


def _is_said_address(text: str, match: re.Match[str]) -> bool:
    return _SAID.search(text, max(0, match.start() - 48), match.start()) is not None


def _is_street(text: str, match: re.Match[str]) -> bool:
    return _NOT_STREETS.match(match[0]) is None


RULES = (
    Rule(
        "street_numbered",
        "street_address",
        rf"(?i)[0-9][A-Za-z]?,? (?:[A-Za-z0-9'\xff.-]{{1,26}} ){{1,5}}(?:{_KINDS})",
        170,
        _NUMBERED,
        _is_street,
        least=6,
        reach=2,
    ),
    Rule(
        "street_behind",
        "street_address",
        rf"(?i)(?:(?:{_SUFFIXED})|(?:^|[^A-Za-z0-9\xff])(?:{_PREFIXES}) [A-Za-z'\xff. -]{{2,120}}),? "
        rf"(?:n\xb0? ?|no\.? ?|nr\.? ?|num\. ?)?[0-9]",
        160,
        _BEHIND,
        least=5,
        reach=5,
    ),
    Rule(
        "street_before",
        "street_address",
        r"[0-9](?: ?(?:bis|ter|[a-d]))?,? (?:rue|avenue|av\.|boulevard|bd|chemin|impasse|quai|allee|place"
        r"|cours|route|passage|square) ",
        25,
        _BEFORE,
        least=4,
        reach=40,
    ),
    Rule(
        "street_in_context",
        "street_address",
        rf"(?i)(?:{_CONTEXT})[^0-9]{{1,40}}[0-9]",
        1,
        _AFTER_CONTEXT,
        _is_said_address,
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
    ),
)

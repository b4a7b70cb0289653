"""Parts of a postal address below the street: units, towns, postcodes, countries, in the orders posts print.

Forms are those of the Universal Postal Union's addressing guide (S42 templates by country): postcode before
the town (most of Europe), behind it (English-speaking countries, India, Spain's and Latin America's common
use), or on a line of its own (United Kingdom, Netherlands).
"""

from __future__ import annotations

from rsc.review.scanner.rules.rule import any_of

CAPITAL = r"A-Z\xff"
WORD = rf"[{CAPITAL}][A-Za-z\xff'.-]{{0,24}}"
"""A capitalised word of a street or town."""
_SMALL_WORDS = any_of(
    "de del della dei di da do dos das la las los le les du des of the van der den am im an bei sur in",
    "vor vorm nad pod pri ob upon on y e a.d.",
)
_SMALL = rf"(?:(?:{_SMALL_WORDS}) |d'|l'|'s-)"
NAME = rf"{_SMALL}{{0,2}}{WORD}(?:[ -]{_SMALL}{{0,2}}{WORD}){{0,4}}"
"""One to five capitalised words with the small ones between."""

_LINE_END = r"\s{0,2}\n[> ]{0,8}\s{0,6}"
GAP = rf"(?:\s?,\s{{0,6}}|{_LINE_END}|\s{{1,2}})"
BREAK = rf"(?:\s?,\s{{0,6}}|{_LINE_END})"
"""What stands between two lines of an address, also when it is printed in one, or quoted in a mail."""

UNIT_WORDS = any_of(
    "apt apartment suite ste flat appartement appt lgh leil puerta piso departamento depto dpto interior",
    "appartamento dto dpto edif torre etage stiege apto andar daire wohnung oficina piano",
)
_UNIT_WORDS_INSIDE = any_of(
    "unit floor fl room rm bldg building local bloco bl sc ap et top tur studio shop level lot rd",
)
UNIT = (
    rf"(?:(?i:{UNIT_WORDS}|{_UNIT_WORDS_INSIDE})\.? ?(?:no\.? ?|n\xb0 ?)?"
    r"#?[0-9A-Z]{1,2}[0-9]{0,4}[A-Za-z]?(?![A-Za-z0-9])|#\s?[0-9]{1,5})"
)
US_STATES = any_of(
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND",
    "OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC PR VI GU AS MP FM MH PW AA AE AP",
)
AU_STATES = any_of("NSW VIC QLD SA WA TAS NT ACT")
BRITISH = r"[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][ABD-HJLNP-UW-Z]{2}"
"""Royal Mail: no C I K M O V in the last two letters."""
CANADIAN = r"[ABCEGHJ-NPRSTVXY][0-9][A-Z] ?[0-9][A-Z][0-9]"
IRISH = r"[ACDEFHKNPRTVWXY][0-9][0-9W] ?[0-9A-Z]{4}"
_STATE_AND_CODE = (
    rf"(?:(?:{US_STATES}),? [0-9]{{5}}(?:-[0-9]{{4}})?|(?:{AU_STATES}),? [0-9]{{4}}"
    rf"|(?:[A-Z]{{2}},? )?{CANADIAN})"
)
_DIGITS = (
    r"(?:[0-9]{5}-[0-9]{3,4}|[0-9]{4}-[0-9]{3}|[0-9]{2}-[0-9]{3}|[0-9]{3} [0-9]{2,3}|[0-9]{4} ?[A-Z]{2}"
    r"|[0-9]{4,8})"
)
POSTCODE = rf"(?:(?:{_STATE_AND_CODE}|{BRITISH}|{IRISH}|(?:[A-Z]{{1,3}}-)?{_DIGITS})(?![0-9A-Za-z\xff]))"
_COUNTRY = any_of(
    "Argentina Australia Austria Belgium Brazil Bulgaria Canada Chile China Colombia Croatia Cyprus Denmark",
    "Egypt Estonia Finland France Germany Greece Greenland Hungary Iceland India Indonesia Ireland Israel",
    "Italy Japan Kenya Latvia Lithuania Luxembourg Malaysia Malta Mexico Morocco Netherlands Nigeria Norway",
    "Pakistan Peru Philippines Poland Portugal Romania Russia Serbia Singapore Slovakia Slovenia Spain",
    "Sweden Switzerland Thailand Tunisia Turkey Ukraine Uruguay Vietnam USA UK Deutschland Schweiz",
)
_COUNTRIES = (
    rf"(?:{_COUNTRY}|United (?:States|Kingdom|Arab Emirates)|South Africa|New Zealand|Czech Republic)"
)
_IN_BRACKETS = r"(?: ?\([A-Za-z]{2,10}\)| ?/ ?[A-Z]{2}(?![A-Za-z]))"
_LINE = rf"(?:{UNIT}|{NAME}{_IN_BRACKETS}?|[A-Z]{{2,4}}|[0-9]{{2}})"
REST = (
    rf"(?:(?:{GAP}{UNIT}){{0,3}}"
    rf"(?:(?:{BREAK}{_LINE}){{0,4}}(?:{GAP}|-){POSTCODE}(?:{GAP}{NAME}(?:/{WORD})?{_IN_BRACKETS}?)?"
    rf"|(?:{BREAK}{_LINE}){{0,3}}{BREAK}(?:{_COUNTRIES}|(?:Region|Provincia|Departamento) "
    rf"{NAME})(?![A-Za-z\xff])"
    rf"|{BREAK}{NAME},\s(?:{US_STATES}|{AU_STATES})(?![A-Za-z]))?)"
)
"""Whatever follows a street: units, then lines of towns, if a postcode, state or country ends them."""

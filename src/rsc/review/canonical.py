"""One form for everything that names the same thing: pseudonyms and searches are made of it.

- telephone numbers: E.164 where a region is known, else the national significant number (phone_number.py)
- e-mail: lower case, the domain in Unicode (IDNA 2003 decoded); IP addresses: RFC 5952, mapped IPv4 as IPv4
- handles: the name alone, also out of the address of a profile
- dates: the year, and day and month in ascending order, because 03/07 is March or July
- addresses: their words and numbers, abbreviations written out, whatever the order
- positions: decimal degrees, four decimals (11 m)

Not covered: names that change letters (Muller for Mueller), numbers written in words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import partial

from rsc.review.phone_number import phone_form, phone_forms
from rsc.review.scanner.normalise import fold_value
from rsc.review.scanner.rules.rule import any_of


def canonical(value: str, *, type_name: str, region: str = "") -> str:
    """One spelling for values that mean the same. A value that cannot be read as its type says keeps its
    folded letters: case, accents, entities, full-width forms and spaces do not count. `region` (ISO 3166) is
    where telephone numbers without country code belong."""
    folded = fold_value(value).strip().lower()
    form = partial(phone_form, region=region) if type_name == "phone" else _FORMS.get(type_name)
    return (form(folded) if form is not None else "") or re.sub(r"\s", "", folded)


def canonical_forms(value: str, *, type_name: str) -> set[str]:
    """Every form that data may hold a value under: that of each region it was imported with."""
    forms = {canonical(value, type_name=type_name)}
    return forms | phone_forms(fold_value(value).strip().lower()) if type_name == "phone" else forms


def canonical_v1(value: str, *, type_name: str) -> str:
    """The form of versions imported before `canonical` went by meaning; searches look for it, too."""
    folded = fold_value(value).lower()
    if type_name in ("phone", "credit_card", "ssn"):
        return re.sub(r"[^0-9]", "", folded)
    if type_name in ("national_id", "id_document", "iban", "mac_address"):
        return re.sub(r"[\W_]", "", folded)
    if type_name == "email":
        folded = _spelled_out(folded)
    return re.sub(r"\s", "", folded) if type_name != "street_address" else " ".join(folded.split())


def _digits(folded: str) -> str:
    return re.sub(r"[^0-9]", "", folded)


def _without_separators(folded: str) -> str:
    return re.sub(r"[\W_]", "", folded)


def _spelled_out(folded: str) -> str:
    """ "ana [at] example [dot] org" with its signs."""
    folded = folded.replace("%40", "@")
    folded = re.sub(r"\s?[\[({<]\s?(?:at|@|arroba|chez)\s?[\])}>]\s?|\sat\s|_at_(?=[^@]*_dot_)", "@", folded)
    return re.sub(r"\s?[\[({<]\s?(?:dot|\.|punkt|point|punto)\s?[\])}>]\s?|\sdot\s|_dot_", ".", folded)


def _email(folded: str) -> str:
    local, _, domain = re.sub(r"\s", "", _spelled_out(folded.removeprefix("mailto:"))).rpartition("@")
    labels = [_unicode(label) for label in domain.rstrip(".").split(".")]
    plain = local[1:-1] if re.fullmatch(r'"[a-z0-9._+-]+"', local) else local
    return f"{plain}@{'.'.join(labels)}" if local else ""


def _unicode(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return fold_value(label.encode("ascii").decode("idna")).lower()
    except UnicodeError:
        return label


def _ip(folded: str) -> str:
    try:
        address = ipaddress.ip_address(folded.strip("[]").partition("%")[0].partition("/")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _handle(folded: str) -> str:
    """The last part of a profile's path that names somebody."""
    path = re.sub(r"^[a-z]+://", "", folded).partition("?")[0].partition("#")[0].rstrip("/")
    return re.sub(r"\s", "", path.rpartition("/")[2]).lstrip("@")


_MONTHS = (
    "jan janv ene gen sty led janu ocak tammi ian",
    "feb fev fevr febr unor subat helmi lut",
    "mar mrt maerz marz mars marec brez maalis mart",
    "apr avr abr dub nisan huhti kwi",
    "may mai mei mag maj kvet mayis touko maio",
    "jun juin giu cerv cerw haziran kesa czerw",
    "jul juil lug lip cervenc temmuz heina",
    "aug aou ago srp agustos elo sie",
    "sep set zar eylul syys wrz",
    "oct okt ott out ekim loka paz rij",
    "nov kasim marras lis listop",
    "dec dez dic des aralik joulu gru pros",
)
_MONTH_OF = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names.split()}
_YEAR = re.compile(r"(?<![0-9])(?:1[89]|20)[0-9]{2}(?![0-9])")


def _date(folded: str) -> str:
    """The year-month-day of a date, with day and month in ascending order."""
    folded = re.sub(r"(?<=[0-9])t[0-9:.]{4,}z?$", "", folded)
    if compact := re.fullmatch(r"((?:1[89]|20)[0-9]{2})([01][0-9])([0-3][0-9])", folded):
        year, parts = compact[1], [int(compact[2]), int(compact[3])]
    else:
        years = _YEAR.findall(folded)
        rest = _YEAR.sub(" ", folded, count=1)
        parts = [int(number) for number in re.findall(r"[0-9]+", rest)]
        if not years and len(parts) >= 2:
            short = parts.pop()
            years = [str(1900 + short if short > 30 else 2000 + short)]
        parts += _months(rest)
        year = years[0] if years else ""
    return f"{year}-{min(parts):02d}-{max(parts):02d}" if year and len(parts) == 2 else ""


def _months(folded: str) -> list[int]:
    """The number of a month's name, by the longest beginning that is known."""
    for word in re.findall(r"[a-z]{3,}", folded):
        for length in range(len(word), 2, -1):
            if word[:length] in _MONTH_OF:
                return [_MONTH_OF[word[:length]]]
    return []


_ABBREVIATED = {
    "st": "street", "str": "strasse", "strase": "strasse", "ave": "avenue", "av": "avenue", "rd": "road",
    "blvd": "boulevard", "bd": "boulevard", "ln": "lane", "dr": "drive", "ct": "court", "pl": "place",
    "sq": "square", "ter": "terrace", "pkwy": "parkway", "cir": "circle", "hwy": "highway",
    "apt": "apartment", "ste": "suite", "fl": "floor", "n": "north", "s": "south", "e": "east", "w": "west",
    "ne": "northeast", "nw": "northwest",
    "se": "southeast", "sw": "southwest", "ul": "ulica", "avda": "avenida", "c": "calle", "bldg": "building",
    "cres": "crescent", "gdns": "gardens", "mt": "mount", "ft": "fort",
}  # fmt: skip
_NOTHING_SAID = frozenset(any_of("no nr num number p o post office").split("|"))


def _address(folded: str) -> str:
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])str(?:\.|(?= ))|(?<=[a-z])strase", "strasse", folded))
    return " ".join(sorted(_ABBREVIATED.get(word, word) for word in words if word not in _NOTHING_SAID))


_ANGLE = re.compile(
    r"([nsewo])?\s?([-+]?[0-9]{1,3}(?:\.[0-9]+)?)\s?(?:\xb0\s?(?:([0-9.]+)\s?'\s?)?(?:([0-9.]+)\s?(?:\"|''))?)?\s?([nsewo](?![a-z]))?"
)


def _position(folded: str) -> str:
    angles = [
        (sign(first or last), float(degrees) + float(minutes or 0) / 60 + float(seconds or 0) / 3600)
        for first, degrees, minutes, seconds, last in _ANGLE.findall(re.sub(r"[a-z]{2,}", " ", folded))
    ]
    return ",".join(f"{side * angle:.4f}" for side, angle in angles) if 1 <= len(angles) <= 2 else ""


def sign(hemisphere: str) -> int:
    """South and west count down."""
    return -1 if hemisphere and hemisphere in "sw" else 1


_FORMS: dict[str, Callable[[str], str]] = {
    "credit_card": _digits,
    "ssn": _digits,
    "national_id": _without_separators,
    "id_document": _without_separators,
    "iban": _without_separators,
    "mac_address": _without_separators,
    "email": _email,
    "ip_address": _ip,
    "handle": _handle,
    "date_of_birth": _date,
    "street_address": _address,
    "coordinates": _position,
}

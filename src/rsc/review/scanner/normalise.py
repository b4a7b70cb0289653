"""Bring text into the form the rules are written for, keeping the way back to the original offsets.

The folded text has one Latin-1 character per position: ASCII as it is; letters without their accents;
compatibility forms (full-width, mathematical, ligatures) by NFKC; decimal digits of every script as
0-9; dashes, quotes and spaces as their ASCII relatives; HTML entities, escapes of JSON strings and escaped
delimiters of URLs decoded; zero-width and combining characters removed. Words of other scripts that say
what follows become their ASCII relatives (foreign_words.py). Other letters become U+00FF, everything else
U+00FE, so that every engine sees one byte per character and a rule can still say "a letter"; Han, kana and
Hangul count as U+00FE, because numbers and addresses stand right beside them.

Cost: pure ASCII without escapes is returned as it is. Text whose characters all fold one to one costs
one `str.translate`. Only text with escapes, zero-width or expanding characters needs the map.

Not covered: look-alike letters of other scripts (Cyrillic a for Latin a), words cut by line ends,
percent-encoded letters, text in pictures.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from rsc.review.scanner import foreign_words

LETTER = "\xff"
OTHER = "\xfe"
DEGREE = "\xb0"
_IRREGULAR = (
    "\x1a"  # marks a character that folds to nothing or to several; ASCII SUB, never meaningful in text
)
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_PERCENT = r"%(?:0[9ADad]|2[0-9A-Fa-f]|3[A-Fa-f]|40|5[BCDbcd]|7[BCDbcd])"
_BACKSLASH = r"\\{1,8}(?:[nrt\"'/]|u[0-9A-Fa-f]{4}|x[2-7][0-9A-Fa-f])"
"""Escapes of JSON and of most languages, also when text was escaped more than once."""
_ESCAPE = re.compile(rf"{_ENTITY}|{_PERCENT}|{_BACKSLASH}")
_ESCAPE_MARKS = ("&", "%", "\\")
_FOREIGN_WORD = re.compile(rf"(?i:{foreign_words.ANY})")
_UNIT = re.compile(rf"{_ESCAPE.pattern}|{_FOREIGN_WORD.pattern}|[^\x00-\x7f]")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
"""What the names of letters begin with that are written right beside digits and Latin letters."""
_PLAIN = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u30fc", "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u0060", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u00b0\u00ba\u02da", DEGREE),
    "\u3002": ".",
    "\u2024": ".",
    "\u00df": "s",
    "\u00f8": "o",
    "\u00d8": "O",
    "\u0142": "l",
    "\u0141": "L",
    "\u0131": "i",
    "\u0130": "I",
    "\u0111": "d",
    "\u0110": "D",
}


@dataclass(frozen=True, slots=True)
class Folded:
    """`text` is what the rules see. Unit i covers folded [folded_starts[i], folded_starts[i + 1]) and
    original [original_starts[i], original_starts[i + 1]); no units mean equal offsets."""

    text: str
    folded_starts: tuple[int, ...] = ()
    original_starts: tuple[int, ...] = ()

    def original(self, *, start: int, end: int) -> tuple[int, int]:
        """Original span of a folded span with start < end. What folded to several counts whole."""
        if not self.folded_starts:
            return start, end
        return self._map(start, is_end=False), self._map(end - 1, is_end=True)

    def folded(self, position: int) -> int:
        """Where an original position lies in the folded text; inside an irregular unit: the unit's start."""
        if not self.folded_starts:
            return position
        unit = min(bisect_right(self.original_starts, position), len(self.original_starts) - 1) - 1
        folded_length = self.folded_starts[unit + 1] - self.folded_starts[unit]
        if folded_length != self.original_starts[unit + 1] - self.original_starts[unit]:
            return self.folded_starts[unit + (position >= self.original_starts[unit + 1])]
        return self.folded_starts[unit] + position - self.original_starts[unit]

    def _map(self, position: int, *, is_end: bool) -> int:
        unit = bisect_right(self.folded_starts, position) - 1
        folded_length = self.folded_starts[unit + 1] - self.folded_starts[unit]
        original_length = self.original_starts[unit + 1] - self.original_starts[unit]
        if folded_length == original_length:
            return self.original_starts[unit] + position - self.folded_starts[unit] + is_end
        return self.original_starts[unit + is_end]


class Normaliser:
    """Remembers how each character folds; one per process is enough, it grows by the characters met."""

    def __init__(self) -> None:
        self._table = _FoldTable()

    def fold(self, text: str) -> Folded:
        """See the module docstring. Never fails, whatever the text holds."""
        has_escape = any(mark in text for mark in _ESCAPE_MARKS) and _ESCAPE.search(text) is not None
        if not has_escape and text.isascii():
            return Folded(text)
        if not has_escape:
            folded = text.translate(self._table)
            if _IRREGULAR not in folded and (
                (LETTER not in folded and OTHER not in folded) or _FOREIGN_WORD.search(text) is None
            ):
                return Folded(folded)
        return _fold_by_units(text)


class _FoldTable(dict[int, str]):
    """For `str.translate`: code point -> one folded character, or the mark of an irregular one."""

    def __missing__(self, code_point: int) -> str:
        folded = fold_character(chr(code_point))
        self[code_point] = folded if len(folded) == 1 else _IRREGULAR
        return self[code_point]


def fold_character(character: str) -> str:
    """The folded form of one character: usually one Latin-1 character, none if it is invisible."""
    if character.isascii():
        return character
    if character in _PLAIN:
        return _PLAIN[character]
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Cf"):
        return ""
    if category in ("Zl", "Zp"):
        return "\n"
    if category == "Nd":
        return str(unicodedata.decimal(character))
    parts = unicodedata.normalize("NFKD", character)
    base = "".join(part for part in parts if unicodedata.category(part) != "Mn")
    if base and base.isascii():
        return base
    if category[0] == "L" and unicodedata.name(character, "").startswith(_UNSPACED):
        return OTHER
    return LETTER if category[0] == "L" else "-" if category == "Pd" else OTHER


def fold_value(value: str) -> str:
    """One value as the rules see it, but with the letters of other scripts, so that two names stay two."""
    if value.isascii() and _ESCAPE.search(value) is None:
        return value
    decoded = _ESCAPE.sub(lambda match: decode_escape(match[0]), value)
    words = _FOREIGN_WORD.sub(lambda match: foreign_words.RELATIVES[match[0].lower()], decoded)
    return "".join(map(_fold_or_keep, unicodedata.normalize("NFKC", words)))


def _fold_or_keep(character: str) -> str:
    folded = fold_character(character)
    return character if folded in (LETTER, OTHER) else folded


def _fold_by_units(text: str) -> Folded:
    """One pass over what does not fold to exactly one character. A text may be made of nothing else, so this
    loop calls as little as it can."""
    pieces: list[str] = []
    folded_starts, original_starts = [0], [0]
    done = place = 0
    is_ascii = text.isascii()
    for match in (_ESCAPE if is_ascii else _UNIT).finditer(text):
        folded = _folded_unit(match[0])
        if folded is None:
            continue
        start, end = match.span()
        if start > done:
            piece = text[done:start]
            pieces.append(piece if is_ascii else _fold_regular(piece))
            place += len(pieces[-1])
            folded_starts.append(place)
            original_starts.append(start)
        pieces.append(folded)
        place += len(folded)
        folded_starts.append(place)
        original_starts.append(end)
        done = end
    if done < len(text):
        pieces.append(_fold_regular(text[done:]))
        folded_starts.append(place + len(pieces[-1]))
        original_starts.append(len(text))
    return Folded("".join(pieces), tuple(folded_starts), tuple(original_starts))


@lru_cache(maxsize=1 << 14)  # a text that has such units has the same ones again and again
def _folded_unit(unit: str) -> str | None:
    """What stands for one entity or character; None for one that folds as all others do."""
    if relative := foreign_words.RELATIVES.get(unit.lower()):
        return relative
    decoded = decode_escape(unit) if len(unit) > 1 else unit
    folded = "".join(map(fold_character, decoded))
    return folded if decoded != unit or len(folded) != len(unit) else None


def decode_escape(escape: str) -> str:
    """The character of one entity, percent or backslash escape."""
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    code = escape.lstrip("\\")
    if code[0] in "ux":
        return chr(int(code[1:], 16))
    return {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)


def _fold_regular(piece: str) -> str:
    return piece if piece.isascii() else "".join(map(fold_character, piece))

"""Secrets by what is said of them: passwords and random values in assignments; web tokens, cloud keys.

Tokens by prefix: token.py. In headers, URLs and commands: credential.py. Private keys: private_key.py.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from rsc.review.scanner.rules.borders import NOT_GOING_ON, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule, any_of

_EDGE, _END = NOT_IN_WORD, NOT_GOING_ON
_AWS = re.compile(
    rf"{_EDGE}(?:A3T[A-Z0-9]|AKIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}{_END}"
)
_JWT = re.compile(
    _EDGE + r"eyJ[A-Za-z0-9_-]{8,4096}(?:\.eyJ[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,2048})?"
    r"|\.[A-Za-z0-9_-]{0,1024}(?:\.[A-Za-z0-9_-]{8,8192}){2,3})"
)
"""Signed (RFC 7515), also without its signature, or encrypted (RFC 7516)."""
_NAMES = (
    r"(?:password|passwd|passphrase|passwort|kennwort|contrasena|wachtwoord|losenord|adgangskode|salasana"
    r"|jelszo|parola|senha|mot de passe|passord)"
    r"|(?<![A-Za-z])(?:pwd|pass|mdp|haslo|heslo|clave|sifre|secret"
    r"|secret[_ -]?key|api[_ -]?key|apikey"
    r"|access[_ -]?(?:key|token)|auth[_ -]?token|client[_ -]?secret|private[_ -]?key|token)"
)
_SUFFIX = r"(?:[se]?(?![A-Za-z])|(?-i:[A-Z])[A-Za-z]{0,24}|(?=[_.\[0-9-]))[A-Za-z0-9_.\[\]-]{0,24}"
"""What goes on behind the word: `passwordHash`, `secret_key[]`, no `tokenizer`."""
_IS = r"(?:[\"'`]?\]?[ \t]{0,8}(?:[!=]==?|:=|=>|->|[:=>])|\sis(?=\s)|\((?=[\"'`])|(?=\s[\"'`]))\s?[ \t]{0,8}"
_ASSIGNED = re.compile(
    rf"(?i)(?:{_NAMES}){_SUFFIX}{_IS}(?:!!binary\s|@(?=\")|[bruf](?=[\"'])|\\(?=[\"']))?"
    r"(?P<q>[\"'`])?(?P<v>(?(q)(?:(?!(?P=q)(?:[\s,;:)}\]>&|.]|\Z))[^\n]){4,200}"
    r"|(?:(?=[^\s\"'`<]{0,120}[({\[][^\s\"'`<]{0,120}[)}\]])[^\s\"'`<]{5,200}"
    r"|[^\s\"'`<]{4,200}[^\s\"'`<>,;(){}\[\].])))(?(q)(?P=q)|(?=[\s\"'`<>,;(){}\[\].]|\Z))"
)
"""A quotation ends at the mark that something other than a letter follows."""
_COMPARED = re.compile(
    r"(?i)(?P<q>[\"'`])(?P<v>(?:(?!(?P=q))[^\n]){4,128})(?P=q)\s?[!=]==?\s?[A-Za-z0-9_.]{0,20}?"
    r"(?:password|passwd|pwd|pass|secret|token|api_?key|private_?key|access_?key)"
)
_VARIABLE = any_of(
    "key token auth cred creds credential credentials secret password passwd pwd pass salt cookie "
    "session cert license licence seed"
)
_RANDOM = re.compile(
    rf"(?i)(?:(?:{_VARIABLE})[A-Za-z0-9_.-]{{0,24}}[\"'`\]]{{0,2}}\s{{0,3}}(?::=|=>|==|[:=(,>])\s{{0,3}}[\"'`]?"
    r"|(?<![A-Za-z0-9])(?P<n>[A-Z_][A-Z0-9_.-]{0,40})[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}[\"'`]?)"
    r"(?P<v>(?=[A-Z+/_.~-]{0,128}[0-9])[A-Z0-9+/_.~-]{16,512}={0,2})(?![A-Z0-9+/_=-])"
)
"""A random run has digits; the first within reach of `Rule.digit`."""
_PUBLIC = re.compile(
    r"(?i)(?:id|ids|hash|sha[0-9]{0,3}|md5|sum|digest|etag|integrity|uuid|guid|commit|rev|revision|nonce|image|img"
    r"|data|src|href|url|path|file|name|public|pub|fingerprint|version|class|type|tag|ref|address|addr)\Z"
)
"""Names of values that look random and open nothing."""
_PLACEHOLDER = re.compile(
    r"(?i)(?:(?:your|my|the|some|change|example|insert|enter)(?![a-z]*[^a-z]*[0-9!#@%])|your[_-]|change[_-]?me"
    r"|placeholder|xxx+|\*{3,}|\.{3,}|(?:none|null|true|false|undefined|required|optional|string)(?![a-z0-9])"
    r"|os\.|env\.|process\.|config\.|self\.|\$[{(]|\$?[a-z_]+\Z|%[({s]|%[a-z_]+%|--|[~.]{0,2}/[a-z0-9_./-]*\Z"
    r"|(?:password|secret|token)(?![a-z]*[0-9]))"
)
_CODE = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:(?:\.|::|->)[A-Za-z_][A-Za-z0-9_]*)*(?:[(\[][A-Za-z0-9_.,=()\[\]]*)?\Z"
)
"""A name, a call or a subscript, as much of it as stands before a space or a quotation mark."""
_PASSWORD_WORD = re.compile(r"(?i)(?!secret|api|access|auth|client|private|token|clave)")
_HEX = re.compile(r"[0-9a-fA-F]+")
_DIGIT_RUNS = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[a-z]+|[A-Z]+")
_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def _is_assigned(text: str, match: re.Match[str]) -> bool:
    """A value somebody would type as a secret: no placeholder, no code, and a mix of kinds, or quoted."""
    value = match["v"]
    is_quoted = bool(match["q"])
    is_word = _PLACEHOLDER.match(value) and not _is_random(value) and not (is_quoted and _is_camel(value))
    if len(set(value)) < 4 or is_word:
        return False
    if not is_quoted and _CODE.match(value) and not (value.isalnum() and _is_mixed(value)):
        return False
    return _is_mixed(value) or (is_quoted and len(value) >= 8) or (len(value) >= 6 and _is_pin(value, match))


def _is_camel(value: str) -> bool:
    """Letters of both cases as somebody types a passphrase; a quoted name of a program has fewer words."""
    return len(value) >= 12 and value.isalpha() and len(_RUN.findall(value)) >= 4


def _is_pin(value: str, match: re.Match[str]) -> bool:
    """Digits alone behind a word for a password; behind "token" or "key" they count something."""
    return value.isdigit() and _PASSWORD_WORD.match(match[0]) is not None


def _is_compared(text: str, match: re.Match[str]) -> bool:
    return _is_mixed(match["v"]) and _PLACEHOLDER.match(match["v"]) is None


def _is_random_value(text: str, match: re.Match[str]) -> bool:
    """Behind a telling name any random run; behind another 32 characters of both cases and digits."""
    value = match["v"]
    name = match["n"]
    if name is None:
        return _is_hex(value) or (_bits(value) >= 3.5 and _mixes_digits(value))
    if len(value) < 32 or len(value) > 128 or _PUBLIC.search(name):
        return False
    return value != value.lower() != value.upper() and _bits(value) >= 4.3 and _mixes_digits(value)


def _is_hex(value: str) -> bool:
    return len(value) >= 32 and _HEX.fullmatch(value) is not None and _bits(value) >= 3


def _mixes_digits(value: str) -> bool:
    """Digits in several places, and no words between dashes, dots or slashes as in a path."""
    return len(_DIGIT_RUNS.findall(value)) >= 3 and max(map(len, _WORDS.findall(value)), default=0) < 9


def _bits(value: str) -> float:
    """Shannon entropy of a value's characters, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def _is_mixed(value: str) -> bool:
    kinds = sum(any(test(c) for c in value) for test in (str.isdigit, str.isalpha, lambda c: not c.isalnum()))
    return kinds >= 2 or _is_random(value)


def _is_random(value: str) -> bool:
    """Letters whose case changes every other character: no word and no camelCase name does that."""
    runs = _RUN.findall(value)
    return value.isalnum() and len(value) >= 8 and len(value) <= 2.4 * len(runs)


RULES = (
    Rule("aws_key", "secret", r"A(?:3T[A-Z0-9]|[A-Z]{2}A)[A-Z0-9]{16}", 20, _AWS, strength=0),
    Rule(
        "json_web_token",
        "secret",
        r"eyJ[A-Za-z0-9_-]{5}",
        10,
        _JWT,
        strength=0,
        head=re.compile(r"eyJ[A-Za-z0-9_-]{5}"),
    ),
    Rule(
        "password_assigned",
        "secret",
        r"(?i)(?:pass|pwd|mdp|contrasena|kennwort|wachtwoord|losenord|adgangskode|salasana|jelszo|parola|senha|haslo"
        r"|heslo|clave|sifre|secret|api[_ -]?key|access[_ -]?key|private[_ -]?key|token)"
        r"[A-Za-z0-9_.\[\]-]{0,49}[\"'`]?\]?[ \t]{0,8}(?:[!:=>(-]|is |\s[\"'`])",
        84,
        _ASSIGNED,
        _is_assigned,
        strength=2,
        reach=200,
        group="v",
    ),
    Rule(
        "password_compared",
        "secret",
        r"(?i)[\"'`]\s?[!=]==?\s?[a-z0-9_.]{0,20}(?:pass|pwd|secret|token|api_?key|private_?key|access_?key)",
        180,
        _COMPARED,
        _is_compared,
        strength=2,
        least=8,
        reach=16,
        group="v",
    ),
    Rule(
        "random_value",
        "secret",
        r"(?i)[a-z0-9_.-][\"'`\]]{0,2}\s{0,3}[:=(,>][=>]?\s{0,3}[\"'`]?[a-z0-9+/_.~-]{16}",
        74,
        _RANDOM,
        _is_random_value,
        strength=3,
        least=18,
        head=re.compile(rf"(?i)(?:{_VARIABLE})|[A-Z_](?<![A-Z0-9][A-Z_])"),
        group="v",
        digit=True,
    ),
)

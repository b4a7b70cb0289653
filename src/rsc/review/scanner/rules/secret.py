"""Secrets: private keys, web tokens, cloud keys, passwords in assignments. Tokens by prefix: token.py."""

from __future__ import annotations

import re

from rsc.review.scanner.rules.borders import NOT_GOING_ON, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule

_EDGE, _END = NOT_IN_WORD, NOT_GOING_ON
_AWS = re.compile(rf"{_EDGE}(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{{16}}{_END}")
_JWT = re.compile(_EDGE + r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{0,2048}")
_PEM = re.compile(
    r"-----BEGIN (?P<k>(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[A-Za-z0-9+/=\s:,.\\()-]{16,16384}?-----END (?P=k)-----|[A-Za-z0-9+/=\s\\]{32,16384})"
)
"""With its end, or as much of it as was pasted."""

_NAMES = (
    r"(?:password|passwd|passphrase|passwort|kennwort|contrasena|wachtwoord|losenord|adgangskode|salasana"
    r"|jelszo|parola|senha|mot de passe|passord)"
    r"|(?<![A-Za-z])(?:pwd|pass|mdp|haslo|heslo|clave|sifre|secret"
    r"|secret[_ -]?key|api[_ -]?key|apikey"
    r"|access[_ -]?(?:key|token)|auth[_ -]?token|client[_ -]?secret|private[_ -]?key|token)"
)
_ASSIGNED = re.compile(
    rf"(?i)(?:{_NAMES})(?:[\"']?\s?(?::=|=>|[:=]| is |>)\s?|(?<=--password) )"
    r"(?P<q>[\"'])?(?P<v>(?(q)[^\"'<>{}\n]{6,128}|[^\s\"'<>]{5,127}[^\s\"'<>,;(){}\[\].]))(?(q)(?P=q)"
    r"|(?=[\s\"'<>,;(){}\[\].]|\Z))"
)
_BEARER = re.compile(
    r"(?i)(?<![A-Za-z])bearer\s{1,2}(?P<v>(?=[A-Z._~+/-]{0,40}[0-9])[A-Z0-9._~+/-]{16,2048}={0,2})"
)
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
_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def _is_assigned(text: str, match: re.Match[str]) -> bool:
    """A value somebody would type as a secret: no placeholder, no code, and a mix of kinds, or quoted."""
    value = match["v"]
    if len(set(value)) < 4 or (_PLACEHOLDER.match(value) and not _is_random(value)):
        return False
    is_quoted = bool(match["q"])
    if not is_quoted and _CODE.match(value) and not (value.isalnum() and _is_mixed(value)):
        return False
    return _is_mixed(value) or (is_quoted and len(value) >= 8)


def _is_mixed(value: str) -> bool:
    kinds = sum(any(test(c) for c in value) for test in (str.isdigit, str.isalpha, lambda c: not c.isalnum()))
    return kinds >= 2 or _is_random(value)


def _is_random(value: str) -> bool:
    """Letters whose case changes every other character: no word and no camelCase name does that."""
    runs = _RUN.findall(value)
    return value.isalnum() and len(value) >= 8 and len(value) <= 2.4 * len(runs)


RULES = (
    Rule("aws_key", "secret", r"A(?:KIA|SIA|ROA|IDA|BIA|CCA)[A-Z0-9]{16}", 20, _AWS, strength=0),
    Rule("json_web_token", "secret", r"eyJ[A-Za-z0-9_-]{5}", 10, _JWT, strength=0, reach=15000),
    Rule(
        "private_key", "secret", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", 64, _PEM, strength=0, reach=17000
    ),
    Rule(
        "password_assigned",
        "secret",
        r"(?i)(?:pass|pwd|mdp|contrasena|kennwort|wachtwoord|losenord|adgangskode|salasana|jelszo|parola|senha|haslo"
        r"|heslo|clave|sifre|secret|api[_ -]?key|access[_ -]?key|private[_ -]?key|token)"
        r"[A-Za-z_ -]{0,12}[\"']?\s?(?:[:=>]|is )|--password ",
        48,
        _ASSIGNED,
        _is_assigned,
        strength=2,
        reach=200,
        group="v",
    ),
    Rule("bearer_token", "secret", r"(?i)bearer\s", 7, _BEARER, strength=1, least=7, reach=64, group="v"),
)

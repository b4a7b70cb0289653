"""Secrets: keys and tokens with a published prefix, private keys, web tokens, passwords in assignments.

Prefixes are those the issuers document so that scanners can find leaked keys (AWS IAM identifiers,
GitHub token formats, Slack, Stripe, Google, GitLab, npm, PyPI, OpenAI, Anthropic, Hugging Face).
"""

from __future__ import annotations

import re

from rsc.review.rules.rule import Rule

_EDGE = r"(?<![0-9A-Za-z_\xff-])"
_END = r"(?![0-9A-Za-z_\xff-])"
_AWS = re.compile(rf"{_EDGE}(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{{16}}{_END}")
_TOKENS = (
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_-]{20,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,128}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"ya29\.[A-Za-z0-9_-]{20,250}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,250}",
    r"sk-(?:proj-|ant-[a-z0-9]{3,8}-)?[A-Za-z0-9_-]{20,200}",
    r"hf_[A-Za-z0-9]{30,64}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    r"dop_v1_[a-f0-9]{64}",
    r"dapi[a-f0-9]{32}",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,43}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"hvs\.[A-Za-z0-9_-]{24,200}",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram bots
    r"hooks\.slack\.com/services/[A-Za-z0-9/_-]{30,80}",
)
_PREFIXED = re.compile(rf"{_EDGE}(?:{'|'.join(_TOKENS)}){_END}")
_PREFIXED_TRIGGER = (
    r"gh[pousr]_[A-Za-z0-9]|github_pat_|glpat-|xox[abeoprs]-|[srp]k_(?:live|test)_|AIza[A-Za-z0-9_-]{4}|GOCSPX-"
    r"|ya29\.|npm_[A-Za-z0-9]|pypi-[A-Za-z0-9_-]{4}|sk-[A-Za-z0-9_-]{8}|hf_[A-Za-z0-9]{4}|SG\.[A-Za-z0-9_-]"
    r"|dop_v1_|dapi[a-f0-9]{8}|shp(?:at|ca|pa|ss)_|sq0(?:atp|csp)-|AGE-SECRET-KEY-1|hvs\.[A-Za-z0-9_-]{2}"
    r"|[0-9]{8}:AA|hooks\.slack\.com/services/"
)
_JWT = re.compile(_EDGE + r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{0,2048}")
_PEM = re.compile(
    r"-----BEGIN (?P<k>(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[A-Za-z0-9+/=\s:,.\\()-]{16,16384}?-----END (?P=k)-----|[A-Za-z0-9+/=\s\\]{32,16384})"
)
"""With its end, or as much of it as was pasted."""

_ASSIGNED = re.compile(
    r"(?i)(?<![A-Za-z])(?:password|passwd|passphrase|passwort|pwd|pass|contrasena|mot de passe|secret"
    r"|secret[_ -]?key|api[_ -]?key|apikey"
    r"|access[_ -]?(?:key|token)|auth[_ -]?token|client[_ -]?secret|private[_ -]?key|token)[\"']?\s?(?::="
    r"|=>|[:=]| is )\s?"
    r"(?P<q>[\"'])?(?P<v>(?(q)[^\"'<>{}\n]{6,128}|[^\s\"'<>,;(){}\[\]]{6,128}))(?(q)(?P=q))(?![A-Za-z0-9(])"
)
_BEARER = re.compile(
    r"(?i)(?<![A-Za-z])bearer\s{1,2}(?P<v>(?=[A-Z._~+/-]{0,40}[0-9])[A-Z0-9._~+/-]{16,2048}={0,2})"
)
_PLACEHOLDER = re.compile(
    r"(?i)(?:your|my|the|some|change|example|placeholder|xxx+|\*{3,}|\.{3,}|none|null|true|false|undefined"
    r"|required|optional|string|os\.|env\.|process\."
    r"|config\.|self\.|\$|%|--|password|secret|token|[a-z_.]+\()"
)


def _is_assigned(text: str, match: re.Match[str]) -> bool:
    """A value somebody would type as a secret: not a placeholder, and a mix of kinds or quoted."""
    value = match["v"]
    if _PLACEHOLDER.match(value) or len(set(value)) < 4:
        return False
    kinds = sum(any(test(c) for c in value) for test in (str.isdigit, str.isalpha, lambda c: not c.isalnum()))
    return kinds >= 2 or (bool(match["q"]) and len(value) >= 8)


RULES = (
    Rule("aws_key", "secret", r"A(?:KIA|SIA|ROA|IDA|BIA|CCA)[A-Z0-9]{16}", 20, _AWS, strength=0),
    Rule(
        "prefixed_token",
        "secret",
        _PREFIXED_TRIGGER,
        26,
        _PREFIXED,
        strength=0,
        reach=300,
    ),
    Rule("json_web_token", "secret", r"eyJ[A-Za-z0-9_-]{5}", 10, _JWT, strength=0, reach=15000),
    Rule(
        "private_key", "secret", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", 64, _PEM, strength=0, reach=17000
    ),
    Rule(
        "password_assigned",
        "secret",
        r"(?i)(?:passw|passp|pwd|pass|contrasena|mot de passe|secret|api[_ -]?key|access[_ -]?key|private[_ "
        r"-]?key|token)"
        r"[A-Za-z_ -]{0,12}[\"']?\s?(?:[:=]|is )",
        48,
        _ASSIGNED,
        _is_assigned,
        strength=2,
        reach=200,
        group="v",
    ),
    Rule("bearer_token", "secret", r"(?i)bearer\s", 7, _BEARER, strength=1, least=7, reach=64, group="v"),
)

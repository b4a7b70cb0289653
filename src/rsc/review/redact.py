"""Replace what was found, by the policy's action, and say where the replacement stands.

A pseudonym is HMAC-SHA256(key, type || canonical value), first 10 bytes in base 32: the same person gets
the same code in every document and data set that shares the key, and without the key nobody can test a
guess. 80 bits: a collision is unlikely below 10^12 distinct values.

Not covered: a pseudonym still links a person's records to each other; that is its purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import NamedTuple

from rsc.errors import ConfigError
from rsc.review.canonical import canonical, canonical_forms, canonical_v1
from rsc.review.findings import Finding
from rsc.review.policy import Policy


class Replacement(NamedTuple):
    """A finding, what was done to it, its half-open span in the redacted text (empty where dropped), and the
    mask of what stood there, for the reviewer."""

    type: str
    start: int
    end: int
    rule: str
    action: str
    redacted_start: int
    redacted_end: int
    shape: str


def redact(
    text: str,
    *,
    findings: Sequence[Finding],
    policy: Policy,
    pseudonym_key: bytes | memoryview | None,
    region: str = "",
) -> tuple[str, list[Replacement]]:
    """The text with every finding replaced by its policy action. Findings must be sorted and apart. `region`
    is where the text's local telephone numbers belong.

    `drop` and `reject` redact as well, so that no caller can pass the text on by mistake. Raises
    ConfigError when the policy pseudonymises and there is no key.
    """
    pieces: list[str] = []
    replacements: list[Replacement] = []
    done = length = 0
    for finding in findings:
        action = policy.action(finding.type)
        value = text[finding.start : finding.end]
        shape = mask(value, type_name=finding.type, last=policy.mask_last.get(finding.type, 0))
        replaced = shape
        if action != "mask":
            replaced = _replace(
                value, type_name=finding.type, action=action, key=pseudonym_key, region=region
            )
        pieces += (text[done : finding.start], replaced)
        start = length + finding.start - done
        length = start + len(replaced)
        done = finding.end
        replacements.append(Replacement(*finding, action, start, length, shape))
    pieces.append(text[done:])
    return "".join(pieces), replacements


def _replace(value: str, *, type_name: str, action: str, key: bytes | memoryview | None, region: str) -> str:
    if action == "allow":
        return value
    if action == "pseudonymise":
        if key is None:
            raise ConfigError(
                f"the policy pseudonymises {type_name}, which needs a pseudonym key",
                hint="hand the gate a key of 32 bytes",
            )
        return f"[{type_name.upper()}:{pseudonym(value, type_name=type_name, key=key, region=region)}]"
    return f"[{type_name.upper()}]"


def mask(value: str, *, type_name: str, last: int = 0) -> str:
    """What may be seen of a value: its type, its length class and, where `last` is above 0, as many of its
    last ASCII letters and digits, though never more than a quarter of them: `[CREDIT_CARD 9-16 ..0366]`.

    Nothing else comes through, whatever the script: a list of what to hide would never be complete."""
    highest = max(4, 1 << (len(value) - 1).bit_length()) if value else 4
    length = "65+" if highest > 64 else f"{highest // 2 + 1 if highest > 4 else 1}-{highest}"
    allowed = [character for character in value if character.isascii() and character.isalnum()]
    shown = "".join(allowed[len(allowed) - min(last, len(allowed) // 4) :])
    return f"[{type_name.upper()} {length}{' ..' if shown else ''}{shown}]"


def is_mask(text: str) -> bool:
    """Whether `mask` may have made it. Older versions kept shapes, with whatever was no letter or digit."""
    return _MASK.fullmatch(text) is not None


_MASK = re.compile(r"\[[A-Z_]+ (?:1-4|5-8|9-16|17-32|33-64|65\+)(?: \.\.[A-Za-z0-9]{1,4})?\]")


def pseudonym(value: str, *, type_name: str, key: bytes | memoryview, region: str = "") -> str:
    """16 characters a-z2-7 that stand for a value under a key, in whatever spelling (canonical.py)."""
    return _code_of(canonical(value, type_name=type_name, region=region), type_name=type_name, key=key)


def pseudonyms(value: str, *, type_name: str, key: bytes | memoryview) -> tuple[str, ...]:
    """The codes that stand for a value in data of any region, the pseudonym without one first, and, last, the
    code of versions imported before codes went by meaning."""
    first = pseudonym(value, type_name=type_name, key=key)
    forms = sorted(canonical_forms(value, type_name=type_name))
    codes = [_code_of(form, type_name=type_name, key=key) for form in forms]
    old = f"rsc pseudonym v1\x00{type_name}\x00{canonical_v1(value, type_name=type_name)}"
    return (*dict.fromkeys((first, *codes)), _code(old, key=key))


def _code_of(form: str, *, type_name: str, key: bytes | memoryview) -> str:
    return _code(f"rsc pseudonym v2\x00{type_name}\x00{form}", key=key)


def _code(message: str, *, key: bytes | memoryview) -> str:
    digest = hmac.digest(bytes(key), message.encode(), hashlib.sha256)
    return base64.b32encode(digest[:10]).decode().lower()

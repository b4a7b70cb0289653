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
from rsc.review.findings import Finding
from rsc.review.policy import Policy
from rsc.review.scanner.normalise import fold_value

_DIGITS_ONLY = frozenset({"phone", "credit_card", "ssn"})
_WITHOUT_SEPARATORS = frozenset({"national_id", "id_document", "iban", "mac_address"})


class Replacement(NamedTuple):
    """A finding, what was done to it, its half-open span in the redacted text (empty where dropped), and the
    shape of what stood there, for the reviewer (`mask`)."""

    type: str
    start: int
    end: int
    rule: str
    action: str
    redacted_start: int
    redacted_end: int
    shape: str


def redact(
    text: str, *, findings: Sequence[Finding], policy: Policy, pseudonym_key: bytes | memoryview | None
) -> tuple[str, list[Replacement]]:
    """The text with every finding replaced by its policy action. Findings must be sorted and apart.

    `drop` and `reject` redact as well, so that no caller can pass the text on by mistake. Raises
    ConfigError when the policy pseudonymises and there is no key.
    """
    pieces: list[str] = []
    replacements: list[Replacement] = []
    done = length = 0
    for finding in findings:
        action = policy.action(finding.type)
        value = text[finding.start : finding.end]
        replaced = _replace(value, type_name=finding.type, action=action, key=pseudonym_key)
        pieces += (text[done : finding.start], replaced)
        start = length + finding.start - done
        length = start + len(replaced)
        done = finding.end
        replacements.append(Replacement(*finding, action, start, length, mask(value)))
    pieces.append(text[done:])
    return "".join(pieces), replacements


def _replace(value: str, *, type_name: str, action: str, key: bytes | memoryview | None) -> str:
    if action == "allow":
        return value
    if action == "mask":
        return mask(value)
    if action == "pseudonymise":
        if key is None:
            raise ConfigError(
                f"the policy pseudonymises {type_name}, which needs a pseudonym key",
                hint="hand the gate a key of 32 bytes",
            )
        return f"[{type_name.upper()}:{pseudonym(value, type_name=type_name, key=key)}]"
    return f"[{type_name.upper()}]"


def mask(value: str) -> str:
    """The shape of a value: digits become 0, letters x or X, the rest stays."""
    return value.translate(_SHAPE)


class _Shape(dict[int, str]):
    """For `str.translate`: what is not in the table yet is worked out once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        letter = "X" if character.isupper() else "x"
        shown = "0" if character.isdecimal() else letter if character.isalnum() else character
        self[code] = shown
        return shown


_SHAPE = _Shape()


def pseudonym(value: str, *, type_name: str, key: bytes | memoryview) -> str:
    """16 characters a-z2-7 that stand for a value under a key."""
    message = f"rsc pseudonym v1\x00{type_name}\x00{canonical(value, type_name=type_name)}".encode()
    return base64.b32encode(hmac.digest(bytes(key), message, hashlib.sha256)[:10]).decode().lower()


def canonical(value: str, *, type_name: str) -> str:
    """One spelling for values that mean the same: case, accents, entities and full-width forms do not count,
    nor do separators where a number may be written with some."""
    folded = fold_value(value).lower()
    if type_name in _DIGITS_ONLY:
        return re.sub(r"[^0-9]", "", folded)
    if type_name in _WITHOUT_SEPARATORS:
        return re.sub(r"[\W_]", "", folded)
    if type_name == "email":
        folded = folded.replace("%40", "@")
        folded = re.sub(r"\s?[\[({<]\s?(?:at|@)\s?[\])}>]\s?|\sat\s", "@", folded)
        folded = re.sub(r"\s?[\[({<]\s?(?:dot|\.)\s?[\])}>]\s?|\sdot\s", ".", folded)
    return re.sub(r"\s", "", folded) if type_name != "street_address" else " ".join(folded.split())

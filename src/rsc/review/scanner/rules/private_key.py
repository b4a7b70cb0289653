"""Private keys in the forms in which they are written down and pasted, whole or cut.

PEM (RFC 7468) and OpenPGP armour (RFC 9580), also indented, quoted, in one line or in base64 once more;
PuTTY's .ppk versions 2 and 3; SSH2 (RFC 4716's frame with a private key).

Not covered: keys in binary form (DER, PKCS#12) unless they stand in base64 behind a name (secret.py).
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.borders import NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule

_BODY = r"[A-Za-z0-9+/=\s:,.\\()\"'>|#*-]"
_STOP = r"-----(?:BEGIN|END)"
_PEM = re.compile(
    r"-----BEGIN (?P<k>(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    rf"(?:(?!{_STOP}){_BODY}){{16,16384}}(?:-----END (?P=k)-----)?"
)
"""To its end, or as much of it as was pasted: to the next frame at the latest, so that no character is read
twice, however many frames begin and do not end."""
_SSH2 = re.compile(
    r"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----(?:(?!---- (?:BEGIN|END)).){16,16384}"
    r"(?:---- END SSH2 (?:ENCRYPTED )?PRIVATE KEY ----)?",
    re.DOTALL,
)
_PUTTY = re.compile(
    r"Private-Lines: ?[0-9]{1,4}\s{1,4}(?P<v>[A-Za-z0-9+/=\s]{16,16384}?"
    r"(?:Private-MAC: ?[0-9a-f]{40,64}|(?![A-Za-z0-9+/=\s])|\Z))"
)
_TWICE = re.compile(NOT_IN_WORD + r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{60,16384}={0,2}")
"""base64 of "-----BEGIN "."""

_BEGINS = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|---- BEGIN SSH2 [A-Z ]{0,10}PRIVATE|Private-Lines:|LS0tLS1CRUdJTi"
)

RULES = (
    Rule(
        "private_key", "secret", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", 64, _PEM, strength=0, head=_BEGINS
    ),
    Rule(
        "private_key_ssh2",
        "secret",
        r"---- BEGIN SSH2 [A-Z ]{0,10}PRIVATE",
        40,
        _SSH2,
        strength=0,
        reach=17000,
    ),
    Rule("private_key_putty", "secret", r"Private-Lines:", 14, _PUTTY, strength=0, head=_BEGINS, group="v"),
    Rule("private_key_base64", "secret", r"LS0tLS1CRUdJTi", 14, _TWICE, strength=0, head=_BEGINS),
)

"""Who may review: a name, a key and an account, signed by the key itself and by somebody enrolled before.

The workspace's owner is enrolled first and signs for themselves: the root of trust. Everybody else is
countersigned by one who is enrolled. An enrolment counts once it is in the audit log, in this order.

The account is the number that the kernel gave the process that made the enrolment; where it comes as a file
from another account, the owner of that file (release/record/reviewers.py). Two keys of one account are one
person.

Not covered: whether an account belongs to the person it is named for; the machine's administrator gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rsc.accounts import Account
from rsc.errors import ConfigError
from rsc.review.approval.identity import Identity

Protection = Literal["none", "passphrase"]
_SIGNED_AS = b"rsc reviewer enrolment v1\n"
_COUNTERSIGNED_AS = b"rsc reviewer enrolment countersigned v1\n"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """`signature` is by `public_key`, `countersignature` by `countersigned_by`, each over who is enrolled."""

    name: str
    public_key: str
    uid: int
    account: str
    protection: Protection
    """What keeps the private key from whoever can read its file."""
    signature: str = ""
    countersigned_by: str = ""
    """Public key; the reviewer's own for the first enrolment."""
    countersignature: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"

    def message(self) -> bytes:
        facts = {name: getattr(self, name) for name in ("name", "public_key", "uid", "account", "protection")}
        return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    def countersigned(self, identity: Identity) -> Enrolment:
        """By somebody who is enrolled; the first one by itself."""
        return replace(
            self,
            countersigned_by=identity.public_key,
            countersignature=identity.sign(_COUNTERSIGNED_AS + self.message()),
        )

    def is_signed(self) -> bool:
        """By its own key: whoever asks to be enrolled holds it."""
        return _is_valid(self.signature, key=self.public_key, message=_SIGNED_AS + self.message())

    def counts_after(self, reviewers: Mapping[str, Enrolment]) -> bool:
        """Whether it may join `reviewers` (by public key): signed by itself and by one of them, or by itself
        where there are none."""
        is_trusted = (
            self.countersigned_by in reviewers if reviewers else self.countersigned_by == self.public_key
        )
        message = _COUNTERSIGNED_AS + self.message()
        holder = next((each for each in reviewers.values() if each.name == self.name), self)
        return (
            is_trusted
            and holder.uid == self.uid  # nobody takes the name of another person
            and self.is_signed()
            and _is_valid(self.countersignature, key=self.countersigned_by, message=message)
        )


def enrolment_of(identity: Identity, *, account: Account, protection: Protection) -> Enrolment:
    """What `identity` asks for, signed by it and not yet countersigned."""
    unsigned = Enrolment(identity.name, identity.public_key, account.uid, account.name, protection)
    return replace(unsigned, signature=identity.sign(_SIGNED_AS + unsigned.message()))


def enrolment_from(record: Mapping[str, Any]) -> Enrolment:
    """Of a file or a record of the log, which may hold more. Raises ConfigError for what is none."""
    try:
        enrolment = Enrolment(**{name: record[name] for name in Enrolment.__slots__})
    except (KeyError, TypeError):
        raise ConfigError("not an enrolment", hint="make one with `rsc review enroll --write FILE`") from None
    texts = [value for name, value in asdict(enrolment).items() if name != "uid"]
    if not all(isinstance(value, str) for value in texts) or not isinstance(enrolment.uid, int):
        raise ConfigError("not an enrolment: a field is of the wrong kind")
    return enrolment


def _is_valid(signature: str, *, key: str, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True

"""Carry a review over a removal of records.

Taking records away changes the root, which voids every approval. A carry says: these bytes are the
approved ones less so many records, nothing was added. RSC wrote the new version itself and signs the
statement with the log's key, so approvals of the old root count for the new one as long as report and
policy are the same bytes.

Not covered: proof to somebody who does not trust the machine that made the new version; they compare
both versions while both exist, or review the new one afresh.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from rsc.audit.note import Signer, Verifier
from rsc.errors import ReviewVoid

CARRIED = "carried.json"
_SIGNED_AS = b"rsc review carried v1\n"


@dataclass(frozen=True, slots=True)
class Carry:
    """The delta between an approved root and the root of what is left."""

    approved_root_hashes: tuple[str, ...]
    """Roots whose approvals count: of the version before, and those it counted itself."""
    from_root_hash: str
    root_hash: str
    removed: dict[str, int]
    """Records taken away, per split, since the version before."""
    reason: str
    signature: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"

    def message(self) -> bytes:
        facts: dict[str, Any] = asdict(self)
        del facts["signature"]
        return _SIGNED_AS + json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    def signed(self, signer: Signer) -> Carry:
        return replace(self, signature=signer.sign_message(self.message()).hex())

    def told(self) -> str:
        removed = ", ".join(f"{count} of {split}" for split, count in sorted(self.removed.items()) if count)
        return f"carried over the removal of {removed or 'nothing'}"


def read_carry(content: bytes, *, root_hash: str, verifier: Verifier) -> Carry:
    """Raises ReviewVoid for a carry that is not signed by this workspace's log, or is about other bytes."""
    try:
        carry = Carry(**json.loads(content))
        carry = replace(carry, approved_root_hashes=tuple(carry.approved_root_hashes))
        is_signed = verifier.is_valid(bytes.fromhex(carry.signature), text=carry.message())
    except (ValueError, TypeError):
        raise ReviewVoid(
            "carried.json cannot be read", hint="review and approve this version afresh"
        ) from None
    if not is_signed or carry.root_hash != root_hash:
        raise ReviewVoid(
            "carried.json does not belong to these bytes or is not signed by this workspace",
            hint="review and approve this version afresh",
        )
    return carry

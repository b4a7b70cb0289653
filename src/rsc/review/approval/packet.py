"""What a reviewer of another account is given to look at and sign: a file, for the workspace is private.

It holds the facts that an approval binds, as bytes to be hashed again by whoever signs, and what
`rsc data review` shows: masked findings in context. It holds no key and no record.

Not covered: proof that the packet is about the data it names. An approval of other facts counts for nothing
in the workspace, which binds it to the bytes there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rsc.errors import ConfigError
from rsc.review.approval.verdict import ReviewFacts, review_facts

_FORMAT = "rsc-review-packet-1"


@dataclass(frozen=True, slots=True)
class Packet:
    data: str
    version: int
    root_hash: str
    author: str
    policy: str
    report: str
    decisions: str
    shown: dict[str, Any]
    """What `rsc data review --json` prints."""

    def to_json(self) -> bytes:
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode() + b"\n"

    def facts(self) -> ReviewFacts:
        return review_facts(
            root_hash=self.root_hash,
            report=self.report.encode(),
            policy=self.policy.encode(),
            decisions=self.decisions.encode(),
            author=self.author,
        )


def packet_from_json(content: bytes) -> Packet:
    """Raises ConfigError for a file that is none."""
    try:
        record = json.loads(content)
        if record.pop("format") != _FORMAT:
            raise ValueError
        packet = Packet(**record)
        texts = (packet.data, packet.root_hash, packet.author, packet.policy, packet.report, packet.decisions)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(
            "not a review packet", hint="make one with `rsc data review NAME --write FILE`"
        ) from None
    return packet

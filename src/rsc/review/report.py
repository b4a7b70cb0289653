"""What the gate did to a data set, in numbers that hold no personal text."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from rsc.review.findings import NOT_LOOKED_FOR, TYPES

FORMAT = "rsc-review-report-v1"


@dataclass(frozen=True, slots=True)
class ReviewReport:
    """`counts[field][type][action]` = findings. Serialises to canonical JSON; the approval binds its hash."""

    records: int
    records_dropped: int
    records_rejected: int
    characters: int
    counts: dict[str, dict[str, dict[str, int]]]
    looked_for: tuple[str, ...] = tuple(TYPES)
    not_looked_for: tuple[str, ...] = NOT_LOOKED_FOR
    single_person: bool = False
    rules: str = ""
    """Identifies the rule set that was used (scan.rules_digest)."""
    recognisers: tuple[str, ...] = ()
    """One sentence per plug-in: what it looks for, and its recall as measured by whoever plugged it in."""
    media: dict[str, int] = field(default_factory=dict)
    """Metadata removed from pictures and recordings, by kind."""
    notes: tuple[str, ...] = ()
    """Sentences a reviewer must read, e.g. that pictures were not scanned."""

    @property
    def findings(self) -> int:
        return sum(sum(actions.values()) for types in self.counts.values() for actions in types.values())

    def by_type(self) -> dict[str, int]:
        """Findings per type over all fields, most frequent first."""
        total: Counter[str] = Counter()
        for types in self.counts.values():
            for name, actions in types.items():
                total[name] += sum(actions.values())
        return dict(total.most_common())

    def ended(self) -> ReviewReport:
        """What stays of it when the data ends: counts by type, without names of fields and sentences."""
        counts: dict[str, Counter[str]] = {}
        for types in self.counts.values():
            for name, actions in types.items():
                counts.setdefault(name, Counter()).update(actions)
        told = {name: dict(actions) for name, actions in counts.items()}
        return replace(self, counts={"all": told} if told else {}, recognisers=(), notes=())

    def to_json(self) -> bytes:
        facts = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({"format": FORMAT, **facts}, sort_keys=True, indent=1).encode() + b"\n"


def report_from_json(content: bytes) -> ReviewReport:
    """Inverse of `ReviewReport.to_json`; keys that came later than a report have their defaults.

    Raises ValueError, KeyError or TypeError on anything else.
    """
    facts: dict[str, Any] = json.loads(content)
    if facts.pop("format", None) != FORMAT:
        raise ValueError("not a review report of this version")
    facts = {"recognisers": (), "notes": (), **facts}
    for name in ("looked_for", "not_looked_for", "recognisers", "notes"):
        facts[name] = tuple(facts[name])
    return ReviewReport(**facts)


def report_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class ReportCounter:
    """Adds up while records stream through the gate."""

    def __init__(self) -> None:
        self.records = self.dropped = self.rejected = self.characters = 0
        self.counts: dict[str, dict[str, Counter[str]]] = {}
        self.media: Counter[str] = Counter()

    def add(self, *, field_name: str, type_name: str, action: str) -> None:
        self.counts.setdefault(field_name, {}).setdefault(type_name, Counter())[action] += 1

"""Find personal data in text: fold, pre-filter, match exactly, check, settle overlaps.

    text -> normalise.fold -> engine says where each rule may start -> exact match -> check -> settle

The set of findings is defined without the engine: all positions where a rule's exact pattern matches and
its check holds, then `settle`. An engine only leaves out positions where no match can start, so all
engines agree by construction (tests/review/test_engines.py tries to prove the opposite).

Not covered: names, places and whatever else `findings.NOT_LOOKED_FOR` lists; data split over records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from rsc.review.engines import Prefilter, choose_engine
from rsc.review.findings import Finding, settle
from rsc.review.normalise import Normaliser
from rsc.review.rules import ALL_RULES
from rsc.review.rules.rule import Rule

EngineName = Literal["auto", "hyperscan", "re2", "re"]


class Scanner:
    """Compiled rules and one engine. Not for sharing between threads; cheap to build per process."""

    def __init__(self, engine: EngineName = "auto", *, rules: Sequence[Rule] = ALL_RULES) -> None:
        self.rules = tuple(rules)
        self._rank = {rule.name: rule.strength for rule in rules}
        self._normaliser = Normaliser()
        self._engine: Prefilter = choose_engine(engine, rules=self.rules)
        self.engine = self._engine.name

    def scan(self, text: str) -> list[Finding]:
        """Findings sorted by start, no two overlapping, offsets in characters of `text`."""
        folded = self._normaliser.fold(text)
        found = {
            finding
            for rule, start, stop in self._engine.windows(folded.text)
            for finding in matches(rule, folded.text, start=start, stop=stop)
        }
        settled = settle(found, rank=self._rank)
        if not folded.folded_starts:
            return settled
        return [
            f._replace(start=s, end=e)
            for f in settled
            for s, e in [folded.original(start=f.start, end=f.end)]
        ]


def rules_digest(rules: Sequence[Rule]) -> str:
    """Changes whenever a pattern changes; a report says with which rules it was made."""
    text = "\n".join(f"{rule.name}\t{rule.type}\t{rule.exact.pattern}\t{rule.strength}" for rule in rules)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def matches(rule: Rule, text: str, *, start: int, stop: int) -> list[Finding]:
    """All findings of one rule that start in [start, stop), overlapping ones included.

    The search may read `rule.reach` beyond `stop`; what it proposes is matched again without a limit, so
    the outcome at a position never depends on the window.
    """
    found = []
    limit = stop + rule.reach
    proposal = rule.exact.search(text, start, limit)
    while proposal is not None and proposal.start() < stop:
        match = rule.exact.match(text, proposal.start())
        if match is not None and rule.check(text, match):
            span = match.span("v") if "v" in rule.exact.groupindex else match.span()
            found.append(Finding(rule.type, span[0], span[1], rule.name))
        proposal = rule.exact.search(text, proposal.start() + 1, limit)
    return found

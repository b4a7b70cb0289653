"""Find personal data in text: fold, pre-filter, match exactly, check, settle overlaps.

    text -> normalise.fold -> engine says where each rule may start -> exact match -> check -> settle

The findings are defined without the engine: each rule's matches whose check holds, leftmost first, then
`settle` among the rules. An engine only leaves out positions where no match can start, so all engines
agree by construction (tests/review/test_prefilter.py tries to prove the opposite).

Not covered: names, places and whatever else `findings.NOT_LOOKED_FOR` lists; data split over records.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import accumulate, chain
from typing import Literal

import phonenumbers

from rsc.errors import ConfigError
from rsc.review.findings import Finding, settle
from rsc.review.scanner.normalise import Normaliser
from rsc.review.scanner.prefilter import Prefilter, choose_engine
from rsc.review.scanner.recogniser import Recogniser, add_recognised
from rsc.review.scanner.rules import ALL_RULES
from rsc.review.scanner.rules.rule import Rule

_BORDER = "\n\x00\n\x00\n"  # ends every pattern and every look back (words.py)
_CONTEXT = 512  # characters before a match that can matter: words before a number, triggers, look-behind
_AROUND = 96
_DECIDING = ("checksums.py", "foreign_words.txt", "local_phone.py", "normalise.py", "scanner.py")
"""Beside the rules: what decides about findings. Engines only leave out what cannot match."""
_FEW = 3  # positions that are cheaper to try one by one than to search

EngineName = Literal["auto", "hyperscan", "re2", "re"]


class Scanner:
    """Compiled rules and one engine. Not for sharing between threads; cheap to build per process."""

    def __init__(
        self,
        engine: EngineName = "auto",
        *,
        rules: Sequence[Rule] = ALL_RULES,
        recognisers: Sequence[Recogniser] = (),
        compiled: Sequence[bytes] = (),
    ) -> None:
        self.rules = tuple(rules)
        self.recognisers = tuple(recognisers)
        self._rank = {rule.name: rule.strength for rule in rules}
        self._grouped = frozenset(rule.name for rule in rules if rule.group)
        self._normaliser = Normaliser()
        self._engine: Prefilter = choose_engine(engine, rules=self.rules, compiled=compiled)
        self.engine = self._engine.name

    def scan(self, text: str) -> list[Finding]:
        """Findings sorted by start, no two overlapping, offsets in characters of `text`."""
        folded = self._normaliser.fold(text)
        found = settle(self._matches(folded.text), rank=self._rank)
        if folded.folded_starts:
            found = [Finding(f.type, *folded.original(start=f.start, end=f.end), f.rule) for f in found]
        return add_recognised(found, text=text, recognisers=self.recognisers) if self.recognisers else found

    def scan_many(self, texts: Sequence[str]) -> list[list[Finding]]:
        """`[scan(text) for text in texts]`, faster for short texts: they are scanned as one, kept apart by a
        border that no rule and no look at the words before a number gets across. Recognisers get each one."""
        if self.recognisers:
            return [self.scan(text) for text in texts]
        folded = [self._normaliser.fold(text) for text in texts]
        starts = list(accumulate((len(f.text) + len(_BORDER) for f in folded), initial=0))
        results: list[list[Finding]] = [[] for _ in texts]
        for finding in settle(self._matches(_BORDER.join(f.text for f in folded)), rank=self._rank):
            index = bisect_right(starts, finding.start) - 1
            first, last = finding.start - starts[index], finding.end - starts[index]
            if folded[index].folded_starts:
                first, last = folded[index].original(start=first, end=last)
            results[index].append(Finding(finding.type, first, last, finding.rule))
        return results

    def scan_stream(self, pieces: Iterable[str], *, overlap: int = 1 << 15) -> Iterator[Finding]:
        """Findings of the joined pieces, offsets in the whole, in memory of one piece and two overlaps.

        The same as `scan` of the whole while no chain of overlapping matches is longer than `overlap` (a
        private key may have 17 KiB). A finding comes when `overlap` characters behind it have been read.
        Raises ConfigError with recognisers: models want whole texts.
        """
        if self.recognisers:
            raise ConfigError("recognisers cannot read a stream", hint="scan whole texts, or leave them out")
        # `offset` is the buffer's place in the whole; matches that start before `resume` have been found.
        buffer, offset, resume = "", 0, 0
        for piece, is_last in chain(((piece, False) for piece in pieces), [("", True)]):
            buffer += piece
            limit = len(buffer) - (0 if is_last else overlap)
            if limit - resume < overlap and not is_last:
                continue  # so that no character is folded and filtered more than three times
            folded = self._normaliser.fold(buffer)
            found = self._matches(folded.text, start=folded.folded(resume), stop=folded.folded(limit))
            first, latest = folded.folded(resume), folded.folded(limit)
            cut = latest if is_last else self._free_cut(found, earliest=first, latest=latest)
            for finding in settle((f for f in found if f.start < cut), rank=self._rank):
                first, last = folded.original(start=finding.start, end=finding.end)
                yield Finding(finding.type, first + offset, last + offset, finding.rule)
            resume = len(buffer) if is_last else folded.original(start=cut, end=cut + 1)[0]
            kept = max(0, resume - _CONTEXT)
            buffer, offset, resume = buffer[kept:], offset + kept, resume - kept

    def _free_cut(self, found: Iterable[Finding], *, earliest: int, latest: int) -> int:
        """The last position in (earliest, latest] that no match covers; `latest` if there is none, and then a
        match may be cut. A finding that is a group inside its match is taken `_AROUND` longer."""
        cut = latest
        for finding in sorted(found, key=lambda f: -f.end):
            around = _AROUND if finding.rule in self._grouped else 0
            if finding.start - around < cut < finding.end + around:
                cut = finding.start - around
        return cut if cut > earliest else latest

    def _matches(self, text: str, *, start: int = 0, stop: int | None = None) -> list[Finding]:
        """Unsettled findings whose matches start in [start, stop)."""
        found: list[Finding] = []
        searched: dict[str, int] = {}
        last = len(text) if stop is None else stop
        for rule, first, until, end in self._engine.windows(text):
            reached, until = searched.get(rule.name, start), until if until < last else last
            if first < reached:
                first = reached
            if first < until:
                searched[rule.name] = match_rule(rule, text, start=first, stop=until, end=end, found=found)
        return found


def rules_digest(rules: Sequence[Rule]) -> str:
    """Changes whenever findings could: with a pattern, a check, a word list, the folding, the numbering plans
    or the Unicode tables. A report says with which rules it was made.

    The sources of what decides are hashed as they are, so a comment changes it too; never the reverse.
    """
    digest = hashlib.sha256(f"{unicodedata.unidata_version} {phonenumbers.__version__}".encode())
    for source in _sources():
        digest.update(hashlib.sha256(source).digest())
    for rule in rules:
        digest.update(f"{rule.name}\t{rule.type}\t{rule.exact.pattern}\t{rule.strength}\n".encode())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[bytes]:
    scanner = resources.files("rsc.review.scanner")
    rules = sorted(scanner.joinpath("rules").iterdir(), key=lambda file: file.name)
    findings = resources.files("rsc.review").joinpath("findings.py")
    for file in [findings, *(scanner.joinpath(name) for name in _DECIDING), *rules]:
        if file.name.endswith((".py", ".txt")):
            yield file.read_bytes()


def match_rule(rule: Rule, text: str, *, start: int, stop: int, end: int, found: list[Finding]) -> int:
    """Append the findings of one rule that start in [start, stop), leftmost first, none overlapping.
    Their triggers end by `end`.

    Returns where the rule may match next: the end of the last finding, or `stop`. Whether a position
    starts a finding never depends on the window, so neither do the findings.
    """
    group, check = rule.group, rule.check
    while start < stop:
        match = _next_match(rule, text, start=start, stop=stop, end=end)
        if match is None:
            return stop
        if check(text, match):
            first, last = match.span(group)
            found.append(Finding(rule.type, first, last, rule.name))
            start = match.end()
        else:
            start = match.start() + 1
    return start


def _next_match(rule: Rule, text: str, *, start: int, stop: int, end: int) -> re.Match[str] | None:
    """The first exact match that starts in [start, stop). A search with an end is a proposal only: what it
    proposes is matched again without one, because the end could cut a match short."""
    exact = rule.exact
    if stop - start <= _FEW:
        for position in range(start, stop):
            if match := exact.match(text, position):
                return match
        return None
    search, limit = (exact, end + rule.reach) if rule.head is None else (rule.head, end)
    while start < stop:
        proposal = search.search(text, start, limit)
        if proposal is None or proposal.start() >= stop:
            return None
        if match := exact.match(text, proposal.start()):
            return match
        start = proposal.start() + 1
    return None

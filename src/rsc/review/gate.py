"""The gate every record passes on its way in: scan, decide by policy, replace, count.

    record -> scan each text field -> policy action per finding -> clean record, or none

A record with a finding whose action is `drop` is left out; with `reject` it must not pass, and the
importer stops or sets the record aside. Both are counted.

Not covered: what the scanner does not look for (findings.NOT_LOOKED_FOR, printed in each report);
fields the caller does not name; the text of dropped records is not kept anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsc.review.field_label import LONGEST_VALUE, field_label
from rsc.review.findings import RECOGNISER_TYPES, TYPES, Finding, not_looked_for
from rsc.review.phone_number import NO_REGION, region_in
from rsc.review.policy import Policy
from rsc.review.redact import Replacement, redact
from rsc.review.report import ReportCounter, ReviewReport
from rsc.review.scanner.local_phone import LocalPhones
from rsc.review.scanner.pool import ScanPool
from rsc.review.scanner.recogniser import describe
from rsc.review.scanner.scanner import Scanner, rules_digest


@dataclass(frozen=True, slots=True)
class GateResult:
    """`text` is None when the record must not be kept."""

    text: str | None
    findings: list[Replacement]
    dropped: bool = False
    rejected: bool = False


@dataclass(frozen=True, slots=True)
class GatedRecord:
    """`record` is None when it was dropped or rejected; findings are kept per field name."""

    record: dict[str, Any] | None
    findings: dict[str, list[Replacement]]
    dropped: bool = False
    rejected: bool = False


class RecordGate:
    """One policy, one scanner, running totals. `pseudonym_key`: 32 bytes, needed by `pseudonymise`."""

    def __init__(
        self,
        policy: Policy,
        *,
        pseudonym_key: bytes | memoryview | None = None,
        scanner: Scanner | ScanPool | None = None,
    ) -> None:
        self.policy = policy
        self._key = pseudonym_key
        self._scanner = scanner or Scanner()
        self._local_phones = LocalPhones()
        self._totals = ReportCounter()

    def pass_text(self, text: str, *, field: str = "text") -> GateResult:
        """One text as a record of its own."""
        gated = self.pass_record({field: text}, fields=(field,))
        clean = None if gated.record is None else gated.record[field]
        return GateResult(clean, gated.findings.get(field, []), gated.dropped, gated.rejected)

    def pass_record(self, record: Mapping[str, Any], *, fields: Sequence[str]) -> GatedRecord:
        """Scan the named text fields; other fields are copied. A field that is absent or None is skipped."""
        texts = {name: record[name] for name in fields if record.get(name) is not None}
        found = zip(texts, self._scan([texts], regions=[self.region_of(record)]), strict=True)
        return self._decide(record, texts=texts, found=dict(found))

    def pass_records(
        self, records: Sequence[Mapping[str, Any]], *, fields: Sequence[str]
    ) -> list[GatedRecord]:
        """`[pass_record(record, fields=fields) for record in records]`, scanned together: faster."""
        texts = [{name: r[name] for name in fields if r.get(name) is not None} for r in records]
        found = self._scan(texts, regions=[self.region_of(record) for record in records])
        return [
            self._decide(record, texts=named, found={name: next(found) for name in named})
            for record, named in zip(records, texts, strict=True)
        ]

    def region_of(self, record: Mapping[str, Any]) -> str:
        """Where a record's local telephone numbers belong: ISO 3166, `NO_REGION`, or nothing where the policy
        names no region at all."""
        policy = self.policy
        named = region_in(record.get(policy.region_field)) if policy.region_field else ""
        return named or policy.region or (NO_REGION if policy.region_field else "")

    def _scan(self, texts: Sequence[Mapping[str, str]], *, regions: Sequence[str]) -> Iterator[list[Finding]]:
        """Findings of each text, a short one read behind its field's name as behind a form's label."""
        places = [region for region, named in zip(regions, texts, strict=True) for _ in named]
        labels = [
            field_label(name) if len(text) <= LONGEST_VALUE else ""
            for named in texts
            for name, text in named.items()
        ]
        values = [text for named in texts for text in named.values()]
        labelled = [label + text for label, text in zip(labels, values, strict=True)]
        scanned = zip(labels, labelled, places, self._scanner.scan_many(labelled), strict=True)
        for label, text, region, found in scanned:
            first = len(label)
            if region:
                found = self._local_phones.add(found, text=text, region=region)
            yield [
                Finding(f.type, max(0, f.start - first), f.end - first, f.rule)
                for f in found
                if f.end > first
            ]

    def _decide(
        self, record: Mapping[str, Any], *, texts: Mapping[str, str], found: Mapping[str, list[Finding]]
    ) -> GatedRecord:
        clean, findings = dict(record), {}
        actions = set()
        for name, text in texts.items():
            if not found[name]:
                continue
            clean[name], findings[name] = redact(
                text,
                findings=found[name],
                policy=self.policy,
                pseudonym_key=self._key,
                region=self.region_of(record),
            )
            for replacement in findings[name]:
                actions.add(replacement.action)
                self._totals.add(field_name=name, type_name=replacement.type, action=replacement.action)
        rejected, dropped = "reject" in actions, "drop" in actions
        self._totals.records += 1
        self._totals.characters += sum(map(len, texts.values()))
        self._totals.rejected += rejected
        self._totals.dropped += dropped and not rejected
        kept = not (rejected or dropped)
        return GatedRecord(clean if kept else None, findings, dropped and not rejected, rejected)

    def report(self, *, notes: Sequence[str] = ()) -> ReviewReport:
        """What passed so far."""
        totals = self._totals
        types = {name for r in self._scanner.recognisers for name in r.types}
        found_by_model = {name: what for name, what in RECOGNISER_TYPES.items() if name in types}
        return ReviewReport(
            records=totals.records,
            records_dropped=totals.dropped,
            records_rejected=totals.rejected,
            characters=totals.characters,
            counts={f: {t: dict(a) for t, a in types.items()} for f, types in totals.counts.items()},
            looked_for=(*TYPES, *found_by_model),
            not_looked_for=not_looked_for(types),
            recognisers=tuple(describe(r) for r in self._scanner.recognisers),
            single_person=self.policy.single_person,
            rules=rules_digest(self._scanner.rules),
            media=dict(totals.media),
            notes=tuple(notes),
        )

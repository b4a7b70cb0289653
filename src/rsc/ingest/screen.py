"""Chunks through the privacy gate: what is kept, and a line for everything that was found.

The gate's findings become rows of the split `findings`, which is encrypted like the data:

    record          number of the record in the source
    split, sample   where the redacted record lies ("" and 0 when the policy dropped it)
    field, type, rule, action
    start, end                      characters of the text as it came in, which is kept nowhere
    redacted_start, redacted_end    characters of the text as it is stored
    subject         the pseudonym of what matched (review.redact) under this version's subject key

Not covered: numbers and byte fields are not scanned; pictures and sound are not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rsc.errors import ReviewRejected
from rsc.ingest.columns import take
from rsc.ingest.source import Chunk, Values
from rsc.review.gate import Gate, GatedRecord
from rsc.review.policy import Policy
from rsc.review.redact import Replacement, pseudonym
from rsc.review.report import ReviewReport
from rsc.review.scan import Scanner
from rsc.store.schema import Field, Schema

FINDINGS = Schema(
    (
        Field("record", "tensor", "uint64"),
        Field("split", "string"),
        Field("sample", "tensor", "uint64"),
        Field("field", "string"),
        Field("type", "string"),
        Field("rule", "string"),
        Field("action", "string"),
        Field("start", "tensor", "uint32"),
        Field("end", "tensor", "uint32"),
        Field("redacted_start", "tensor", "uint32"),
        Field("redacted_end", "tensor", "uint32"),
        Field("subject", "string"),
    )
)


@dataclass(frozen=True)
class FoundIn:
    """One finding; `position` is the row among the kept records of its chunk, None when dropped."""

    record: int
    position: int | None
    field: str
    subject: str
    what: Replacement


@dataclass
class Screened:
    """The records that may be kept, redacted, and everything found on the way."""

    columns: dict[str, Values]
    numbers: np.ndarray
    found: list[FoundIn] = field(default_factory=list)


class Screener:
    """One policy over the chunks of one part. `report` counts what passed."""

    def __init__(
        self,
        *,
        policy: Policy,
        scanner: Scanner,
        text_fields: Sequence[str],
        subject_key: memoryview,
    ) -> None:
        self._gate = Gate(policy, pseudonym_key=subject_key, scanner=scanner)
        self._fields = tuple(text_fields)
        self._subject_key = subject_key

    def report(self) -> ReviewReport:
        return self._gate.report()

    def screen(self, chunk: Chunk) -> Screened:
        """Raises ReviewRejected when the policy says that a finding stops the import."""
        if not self._fields or not chunk.num_records:
            return Screened(dict(chunk.columns), chunk.numbers)
        texts = [chunk.columns[name] for name in self._fields]
        clean: list[dict[str, str]] = []
        kept: list[int] = []
        found: list[FoundIn] = []
        for row, values in enumerate(zip(*texts, strict=True)):
            original = dict(zip(self._fields, values, strict=True))
            gated = self._gate.pass_record(original, fields=self._fields)
            if gated.findings:
                number = int(chunk.numbers[row])
                _stop_if_rejected(gated, number=number)
                found += self._rows(gated, original, number=number, position=len(clean))
            if gated.record is not None:
                clean.append(gated.record)
                kept.append(row)
        rows = np.array(kept, dtype=np.int64)
        columns = take(chunk.columns, rows) if len(kept) < chunk.num_records else dict(chunk.columns)
        columns |= {name: [record[name] for record in clean] for name in self._fields}
        return Screened(columns, chunk.numbers[rows], found)

    def _rows(
        self, gated: GatedRecord, original: dict[str, str], *, number: int, position: int
    ) -> list[FoundIn]:
        place = None if gated.record is None else position
        return [
            FoundIn(
                number, place, name, self._subject(original[name][what.start : what.end], what.type), what
            )
            for name, replacements in gated.findings.items()
            for what in replacements
        ]

    def _subject(self, value: str, type_name: str) -> str:
        return pseudonym(value, type_name=type_name, key=self._subject_key)


def _stop_if_rejected(gated: GatedRecord, *, number: int) -> None:
    if not gated.rejected:
        return
    name, what = next(
        (name, what)
        for name, replacements in gated.findings.items()
        for what in replacements
        if what.action == "reject"
    )
    raise ReviewRejected(
        f'record {number}, field "{name}": found {what.type}, the policy is reject; nothing was committed',
        hint="remove the record from the source, or choose redact or drop for this type in the policy",
        record=number,
        field=name,
        type=what.type,
    )


def merge_reports(reports: Sequence[ReviewReport], *, notes: Sequence[str]) -> ReviewReport:
    """One report for several parts of a source that passed the same rules. Needs at least one."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    media: Counter[str] = Counter()
    for report in reports:
        media.update(report.media)
        for field_name, types in report.counts.items():
            for type_name, actions in types.items():
                counts.setdefault(field_name, {}).setdefault(type_name, Counter()).update(actions)
    return replace(
        reports[0],
        records=sum(report.records for report in reports),
        records_dropped=sum(report.records_dropped for report in reports),
        records_rejected=sum(report.records_rejected for report in reports),
        characters=sum(report.characters for report in reports),
        counts={name: {t: dict(actions) for t, actions in types.items()} for name, types in counts.items()},
        media=dict(media),
        notes=tuple(notes),
    )

"""Results of parts, in order, into the version being written; and what is counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rsc.ingest.map_part import QUARANTINE, ImportPlan, PartResult, PlacedFinding, quarantine_columns
from rsc.ingest.parse_limits import LimitPassed, require_ratio
from rsc.ingest.readers.source import Fingerprint
from rsc.ingest.readers.tables.typed_columns import to_store
from rsc.ingest.screen import FINDINGS, merge_reports
from rsc.ingest.tokenize import TOKENIZER_SCHEMA, TOKENIZER_SPLIT
from rsc.review.public_text import public_text
from rsc.review.report import ReviewReport
from rsc.store.format.columns import Columns
from rsc.store.format.schema import Schema
from rsc.store.writer import DatasetWriter

FINDINGS_SPLIT, QUARANTINE_SPLIT = "findings", "quarantine"
_BAD_SHOWN = 20  # bad records named; all of them are in the split `quarantine`


@dataclass
class Totals:
    """Sums over the parts written so far."""

    samples: Counter[str] = field(default_factory=Counter)
    num_read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    bad_records: list[int] = field(default_factory=list)
    bad_places: list[str] = field(default_factory=list)
    """Where bad records were, for whoever runs the import: paths may name people, so they are not kept."""
    notes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Records that the selection of the import does not take, by reason."""
    first_record: int = 0
    """Where numbers of records begin: behind those of the version that is added to."""
    report: ReviewReport | None = None

    @property
    def num_dropped(self) -> int:
        return self.report.records_dropped if self.report else 0

    @property
    def num_findings(self) -> int:
        return self.report.findings if self.report else 0


class Unpacked:
    """What a source has unpacked to so far, of which each part alone stayed within the limit."""

    def __init__(self, source: Fingerprint) -> None:
        self._source = source
        self._bytes: Counter[str] = Counter()

    def within_limits(self, result: PartResult) -> PartResult:
        """The result, without its records where the file has unpacked to too much. Raises LimitPassed where
        there is no other file to go on with, or all files together have."""
        if result.report is None:  # set aside before
            return result
        self._bytes[result.name] += max(result.size_bytes, result.unpacked_bytes)
        size_bytes, num_files = self._source.size_bytes, self._source.num_files
        require_ratio(self._bytes.total(), source_bytes=size_bytes, num_files=num_files)
        try:
            require_ratio(self._bytes[result.name], source_bytes=size_bytes)
        except LimitPassed as error:
            return result.without_records(error.message)
        return result


def schemas(plan: ImportPlan) -> dict[str, Schema]:
    """The splits of a version: the data's, and those that tell what happened to it."""
    return {
        **dict.fromkeys(plan.splits, plan.stored_schema),
        FINDINGS_SPLIT: FINDINGS,
        QUARANTINE_SPLIT: QUARANTINE,
        **({} if plan.tokenizer_json is None else {TOKENIZER_SPLIT: TOKENIZER_SCHEMA}),
    }


def write_part(writer: DatasetWriter, result: PartResult, *, totals: Totals) -> None:
    """Append everything of one part. Raises ResourceError when the storage fails."""
    if result.found:
        writer.append(FINDINGS_SPLIT, _finding_columns(result.found, totals=totals))
    result.bad = [replace(bad, record=bad.record + totals.first_record) for bad in result.bad]
    if result.bad:
        writer.append(QUARANTINE_SPLIT, quarantine_columns(result.bad))
    for split, columns in result.columns.items():
        writer.append(split, columns)
        totals.samples[split] += len(next(iter(columns.values())))
    totals.num_read += result.num_read
    totals.bad.update(record.reason for record in result.bad)
    totals.bad_records += [record.record for record in result.bad][: _BAD_SHOWN - len(totals.bad_records)]
    totals.bad_places += [
        public_text(record.place) for record in result.bad[: _BAD_SHOWN - len(totals.bad_places)]
    ]
    totals.notes.update(result.notes)
    totals.left_out.update(result.left_out)
    reports = [report for report in (totals.report, result.report) if report is not None]
    if reports:
        totals.report = merge_reports(reports, notes=())


def _finding_columns(found: Sequence[PlacedFinding], *, totals: Totals) -> Columns:
    """Rows of `findings`; `totals.samples` is where this part's samples begin in each split."""
    whats = [item.finding.what for item in found]
    return to_store(
        FINDINGS,
        {
            "record": [item.finding.record + totals.first_record for item in found],
            "split": [item.split or "" for item in found],
            "sample": [totals.samples[item.split] + item.row if item.split else 0 for item in found],
            "field": [item.finding.field for item in found],
            "subject": [item.finding.subject for item in found],
            **{name: [getattr(what, name) for what in whats] for name in whats[0]._fields},
        },
    )

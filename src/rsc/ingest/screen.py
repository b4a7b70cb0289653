"""Chunks through the privacy gate: what is kept, and a line for everything that was found.

The gate's findings become rows of the split `findings`, which is encrypted like the data:

    record          number of the record in the source
    split, sample   where the redacted record lies ("" and 0 when the policy dropped it)
    field, type, rule, action
    start, end                      characters of the text as it came in, which is kept nowhere
    redacted_start, redacted_end    characters of the text as it is stored
    shape                           the mask of what stood there: type and class of length
    subject         the pseudonym of what matched (review.redact) under this version's subject key

Fields of bytes are taken for what they hold, value by value: pictures and sounds lose their metadata, text
is scanned and redacted in its own encoding.

Fields of numbers pass unchanged. One that looks like identifiers stops the import with a question
(review.number_column), unless the policy allows them or `plain_numbers` says that they are none.

Not covered: lists of numbers, and bytes that are neither; what pictures show and sounds say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rsc.errors import DataError, ReviewRejected
from rsc.ingest.readers.source import BadRecord, Chunk, Values
from rsc.ingest.readers.tables.typed_columns import each, take
from rsc.review.gate import GatedRecord, RecordGate
from rsc.review.media.clean import clean_media
from rsc.review.media.recognise import Text, medium_of, text_of
from rsc.review.number_column import identifiers_in
from rsc.review.policy import Policy
from rsc.review.redact import Replacement, pseudonym
from rsc.review.report import ReviewReport
from rsc.review.scanner.scanner import Scanner
from rsc.store.format.schema import Field, Schema

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
        Field("shape", "string"),
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
    bad: list[BadRecord] = field(default_factory=list)


class Screener:
    """One policy over the chunks of one part. `report` counts what passed.

    `media_fields` hold whole files: their metadata is taken out (review.media), and a file that cannot
    be cleaned is a bad record. `bytes_fields` may hold anything.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        scanner: Scanner,
        text_fields: Sequence[str],
        media_fields: Sequence[str] = (),
        bytes_fields: Sequence[str] = (),
        plain_numbers: Collection[str] = (),
        source_names: Mapping[str, str] | None = None,
        is_scanned: bool = True,
        subject_key: memoryview,
    ) -> None:
        self._gate = RecordGate(policy, pseudonym_key=subject_key, scanner=scanner)
        self._policy = policy
        self._scan_many = scanner.scan_many
        self._plain_numbers = plain_numbers
        self._source_names = source_names or {}
        self._fields = tuple(text_fields)
        self._media_fields = tuple(media_fields)
        self._bytes_fields = tuple(bytes_fields)
        self._is_scanned = is_scanned
        self._removed: Counter[str] = Counter()
        self._subject_key = subject_key

    def report(self) -> ReviewReport:
        return replace(self._gate.report(), media=dict(self._removed))

    def screen(self, chunk: Chunk) -> Screened:
        """Raises ReviewRejected when the policy says that a finding stops the import, and for numbers like
        identifiers."""
        self._ask_about_numbers(chunk)
        columns, numbers, bad = self._clean(chunk)
        inside = self._texts_inside(columns) if len(numbers) else {}
        fields = (*self._fields, *inside)
        if not fields or not len(numbers):
            return Screened(columns, numbers, bad=bad)
        scanned = {name: columns[name] for name in self._fields} | {
            name: [found and found.text for found in texts] for name, texts in inside.items()
        }
        originals = [dict(zip(fields, values, strict=True)) for values in zip(*scanned.values(), strict=True)]
        gated = self._gate.pass_records(originals, fields=fields)
        kept = [row for row, result in enumerate(gated) if result.record is not None]
        found: list[FoundIn] = []
        position = 0
        for row, result in enumerate(gated):
            if result.findings:
                number = int(numbers[row])
                _stop_if_rejected(result, number=number)
                found += self._rows(result, originals[row], number=number, position=position)
            position += result.record is not None
        rows = np.array(kept, dtype=np.int64)
        columns = take(columns, rows) if len(kept) < len(numbers) else columns
        clean = [result.record for result in gated if result.record is not None]
        columns |= {name: [record[name] for record in clean] for name in self._fields}
        for name, texts in inside.items():
            columns[name] = [
                value if found is None or record[name] == found.text else record[name].encode(found.encoding)
                for value, record, found in zip(
                    each(columns[name]), clean, (texts[row] for row in kept), strict=True
                )
            ]
        return Screened(columns, numbers[rows], found, bad)

    def _ask_about_numbers(self, chunk: Chunk) -> None:
        for name, values in chunk.columns.items() if self._is_scanned else ():
            is_number = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf"
            if not is_number or name in self._plain_numbers:
                continue
            kind = identifiers_in(name, np.asarray(values), scan_many=self._scan_many)
            if kind and self._policy.action(kind) != "allow":
                raise _identifiers(self._source_names.get(name, name), kind)

    def _clean(self, chunk: Chunk) -> tuple[dict[str, Values], np.ndarray, list[BadRecord]]:
        """The chunk with its files stripped, without those that cannot be."""
        columns, numbers = dict(chunk.columns), chunk.numbers
        reasons: dict[int, BadRecord] = {}
        for name in (*self._media_fields, *self._bytes_fields) if len(numbers) else ():
            files: list[bytes] = []
            for row, data in enumerate(each(columns[name])):
                if name in self._bytes_fields and medium_of(bytes(data)) is None:
                    files.append(data)
                    continue
                try:
                    clean = clean_media(bytes(data))
                except DataError as error:
                    number = int(numbers[row])
                    reasons[row] = BadRecord(number, f"record {number}", error.message, raw=bytes(data))
                    files.append(b"")
                    continue
                self._removed.update(removed.kind for removed in clean.removed)
                files.append(clean.data)
            columns[name] = files
        if not reasons:
            return columns, numbers, []
        rows = np.array([row for row in range(len(numbers)) if row not in reasons], dtype=np.int64)
        return take(columns, rows), numbers[rows], list(reasons.values())

    def _texts_inside(self, columns: Mapping[str, Values]) -> dict[str, list[Text | None]]:
        """Values of byte fields that are text, by field; fields without any are left out."""
        if not self._is_scanned:
            return {}
        found = {
            name: [text_of(bytes(value)) for value in each(columns[name])] for name in self._bytes_fields
        }
        return {name: texts for name, texts in found.items() if any(texts)}

    def _rows(
        self, gated: GatedRecord, original: dict[str, str], *, number: int, position: int
    ) -> list[FoundIn]:
        place = None if gated.record is None else position
        region = self._gate.region_of(original)
        return [
            FoundIn(
                number,
                place,
                name,
                pseudonym(
                    original[name][what.start : what.end],
                    type_name=what.type,
                    key=self._subject_key,
                    region=region,
                ),
                what,
            )
            for name, replacements in gated.findings.items()
            for what in replacements
        ]


def _identifiers(name: str, kind: str) -> ReviewRejected:
    return ReviewRejected(
        f"are the numbers in field {name!r} personal data? They look like {kind}, and numbers cannot be "
        "redacted; nothing was committed",
        hint=f"schema.{name}=string has them redacted as text, --fields leaves the field out, "
        f"plain_numbers={name} takes them as they are",
        field=name,
        type=kind,
    )


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

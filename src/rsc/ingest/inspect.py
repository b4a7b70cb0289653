"""What a reviewer sees of a version: findings in context, with whatever matched masked.

Not covered: what the gate did not find stands in the context as it is; that is what a reviewer is for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from rsc.ingest.sink import FINDINGS_SPLIT, QUARANTINE_SPLIT
from rsc.ingest.tokenize import TOKENIZER_SPLIT
from rsc.keys.secret import SecretKey
from rsc.review.findings import Finding
from rsc.review.view import ReviewText
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Columns, Ragged
from rsc.store.format.frames import decode_frame
from rsc.store.format.reserved_names import SIDECARS
from rsc.store.splits import SplitReader
from rsc.tokenizer_json import JsonTokenizer

_CONTEXT_CHARS = 48  # on each side: a line of a terminal holds both


@dataclass(frozen=True)
class StoredFinding:
    """A row of the split `findings`."""

    record: int
    split: str
    sample: int
    field: str
    type: str
    rule: str
    action: str
    start: int
    end: int
    redacted_start: int
    redacted_end: int
    subject: str
    shape: str = ""


@dataclass(frozen=True)
class Excerpt:
    """One finding in its redacted surroundings."""

    finding: StoredFinding
    context: str


@dataclass(frozen=True)
class QuarantinedRecord:
    record: int
    place: str
    reason: str
    raw: bytes


def read_findings(dataset: Dataset, *, key: SecretKey) -> Iterator[StoredFinding]:
    """All findings in source order, one frame in memory."""
    yield from (StoredFinding(**row) for row in _rows(dataset, FINDINGS_SPLIT, key=key))


def read_quarantine(dataset: Dataset, *, key: SecretKey) -> Iterator[QuarantinedRecord]:
    """Records that could not be read, with their bytes."""
    yield from (QuarantinedRecord(**row) for row in _rows(dataset, QUARANTINE_SPLIT, key=key))


def excerpts(dataset: Dataset, *, key: SecretKey, per_type: int) -> list[Excerpt]:
    """Up to `per_type` findings of each type whose record was kept, with context."""
    chosen: dict[str, list[StoredFinding]] = defaultdict(list)
    of_sample: dict[tuple[str, int, str], list[StoredFinding]] = {}
    for place, group in groupby(read_findings(dataset, key=key), key=_place):  # of a text: together
        findings = list(group)
        for finding in findings:
            if finding.split and len(chosen[finding.type]) < per_type:
                chosen[finding.type].append(finding)
                of_sample[place] = findings  # all are masked in the surroundings of each
    wanted = [finding for findings in chosen.values() for finding in findings]
    texts = _texts(dataset, wanted, key=key)
    return [
        Excerpt(finding, _context(texts[_place(finding)], finding, others=of_sample[_place(finding)]))
        for finding in wanted
    ]


def findings_by_record(findings: Iterator[StoredFinding], *, field: str) -> Mapping[int, list[Finding]]:
    """Findings of one field by source record, in the scanner's own terms."""
    found: dict[int, list[Finding]] = defaultdict(list)
    for item in findings:
        if item.field == field:
            found[item.record].append(Finding(item.type, item.start, item.end, item.rule))
    return found


def read_sample(reader: SplitReader, sample: int) -> dict[str, Any]:
    """Fields of one sample of a split: str for strings, bytes for bytes, arrays for the rest."""
    place = reader.locate(sample)
    shard = reader.open_shard(place.shard)
    try:
        firsts = shard.frames["first_sample"]
        frame = int(np.searchsorted(firsts, place.sample_in_shard, side="right")) - 1
        count = int(shard.frames["num_samples"][frame])
        columns = decode_frame(reader.schema, shard.read_frame(frame), count)
    finally:
        shard.close()
    kinds = {item.name: item.kind for item in reader.schema.fields}
    row = place.sample_in_shard - int(firsts[frame])
    return {name: _value(column, row, kind=kinds[name]) for name, column in columns.items()}


def read_rows(dataset: Dataset, names: Sequence[str], *, key: SecretKey) -> Iterator[dict[str, Any]]:
    """These fields of every sample of the data's own splits, one frame in memory."""
    for split, info in dataset.splits.items():
        if set(names) <= {item.name for item in info.schema.fields} and split not in SIDECARS:
            yield from ({name: row[name] for name in names} for row in _rows(dataset, split, key=key))


def _place(finding: StoredFinding) -> tuple[str, int, str]:
    return finding.split, finding.sample, finding.field


def _texts(
    dataset: Dataset, findings: Sequence[StoredFinding], *, key: SecretKey
) -> dict[tuple[str, int, str], str]:
    texts: dict[tuple[str, int, str], str] = {}
    decode = _decoder(dataset, key=key)
    for split in sorted({finding.split for finding in findings}):
        reader = dataset.split(split, key=key)
        for finding in findings:
            if finding.split == split and _place(finding) not in texts:
                value = read_sample(reader, finding.sample)[finding.field]
                texts[_place(finding)] = value if isinstance(value, str) else decode(value)
        reader.close()
    return texts


def _decoder(dataset: Dataset, *, key: SecretKey) -> Callable[[Iterable[int]], str]:
    """Ids to text, with the tokenizer that was used at import; bytes where there was none."""
    if TOKENIZER_SPLIT not in dataset.splits:
        return lambda ids: bytes(ids).decode(errors="replace")
    (row,) = _rows(dataset, TOKENIZER_SPLIT, key=key)
    return JsonTokenizer(row["json"]).decode


def _context(text: str, finding: StoredFinding, *, others: Sequence[StoredFinding]) -> str:
    """The surroundings on one line. What the policy lets stay is masked here all the same."""
    in_order = sorted(others, key=lambda other: other.redacted_start)
    view = ReviewText(text, findings=in_order)
    return view.sample(finding, record=finding.record, field=finding.field, width=_CONTEXT_CHARS).line()


def _rows(dataset: Dataset, split: str, *, key: SecretKey) -> Iterator[dict[str, Any]]:
    reader = dataset.split(split, key=key)
    kinds = {item.name: item.kind for item in reader.schema.fields}
    try:
        for columns in reader.iterate():
            yield from _frame_rows(columns, kinds=kinds)
    finally:
        reader.close()


def _frame_rows(columns: Columns, *, kinds: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for row in range(len(next(iter(columns.values())))):
        yield {name: _value(column, row, kind=kinds[name]) for name, column in columns.items()}


def _value(column: np.ndarray | Ragged, row: int, *, kind: str) -> Any:
    item = column[row]
    if kind == "string":
        return bytes(item).decode(errors="replace")
    if kind == "bytes":
        return bytes(item)
    return item.item() if item.ndim == 0 else item.copy()

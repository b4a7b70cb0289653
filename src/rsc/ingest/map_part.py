"""One part of a source, all the way to columns that only need encrypting. Runs in any process.

    read -> gate -> choose a split -> the store's columns, and rows of `findings` and `quarantine`

The outcome of a part depends on the part and the plan alone, so the order in which processes finish
parts changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from rsc.errors import ConfigError
from rsc.ingest.config import ImportOptions
from rsc.ingest.holdout import DEFAULT_SHARE, TRAIN, VALIDATION, held_out
from rsc.ingest.parse_limits import LimitPassed, require_ratio
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source, Values
from rsc.ingest.readers.tables.typed_columns import each, take, to_store
from rsc.ingest.screen import FoundIn, Screened, Screener
from rsc.ingest.select import Selection
from rsc.layers import nearest
from rsc.review.policy import Policy
from rsc.review.public_text import is_public, public_text
from rsc.review.report import ReviewReport
from rsc.review.scanner.recogniser import load_recognisers
from rsc.review.scanner.scanner import EngineName, Scanner
from rsc.store.format.columns import Columns, concatenate_columns
from rsc.store.format.schema import Field, Schema
from rsc.tokenizer_json import JsonTokenizer

QUARANTINE = Schema(
    (
        Field("record", "tensor", "uint64"),
        Field("place", "string"),
        Field("reason", "string"),
        Field("raw", "bytes"),
    )
)


@dataclass(frozen=True)
class ImportPlan:
    """What every part is done by. `name` is the data set's; all engines find the same."""

    name: str
    source: Source
    schema: Schema
    options: ImportOptions
    policy: Policy
    engine: EngineName = "auto"
    tokenizer_json: str | None = None
    source_bytes: int = 0
    """Of all files of the source, as they lie there."""
    holdout_key: str = ""
    """See holdout.py."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What the import says about the source as a whole; counted with the first part."""
    selection: Selection = field(default_factory=Selection)
    """Which records are taken."""
    is_for_contents: bool = False
    """Whether parts are read for `PartResult.contents` alone, before the import itself."""
    is_surveyed: bool = False
    """Whether the types were found by reading the whole source, because the first records told too little."""

    @cached_property
    def tokenizer(self) -> JsonTokenizer | None:
        return None if self.tokenizer_json is None else JsonTokenizer(self.tokenizer_json)

    @property
    def stored_schema(self) -> Schema:
        """The fields as they are stored: `text` as ids where there is a tokenizer."""
        if self.tokenizer is None:
            return self.schema
        ids = Field("text", "tokens", self.tokenizer.dtype)
        return Schema(tuple(ids if item.name == "text" else item for item in self.schema.fields))

    @property
    def holdout(self) -> float:
        if self.options.holdout is not None:
            return self.options.holdout
        return 0.0 if self.source.splits() else DEFAULT_SHARE

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that may get samples, `train` first."""
        names = [*(self.source.splits() or (TRAIN,)), *([VALIDATION] if self.holdout else [])]
        return tuple(dict.fromkeys(names))

    @cached_property
    def scanner(self) -> Scanner:
        """This process's own. The fastest engine takes half a second to get ready, a model more: not for
        nothing to scan."""
        if not self.text_fields and not (self.bytes_fields and self.options.scan):
            return Scanner("re")
        return Scanner(self.engine, recognisers=load_recognisers(self.policy.models))

    @property
    def media_fields(self) -> tuple[str, ...]:
        """Fields that hold pictures or sounds as files, not decoded."""
        files = {item.name for item in self.schema.fields if item.kind == "bytes"}
        return tuple(name for name in self.source.media() if name in files)

    @property
    def bytes_fields(self) -> tuple[str, ...]:
        """Fields of bytes of any kind, which only their content tells."""
        media = self.source.media()
        return tuple(
            item.name for item in self.schema.fields if item.kind == "bytes" and item.name not in media
        )

    @cached_property
    def plain_numbers(self) -> frozenset[str]:
        """Fields that the options call plain numbers. Raises ConfigError for one that is not there."""
        stored = {their: name for name, their in self.source.names().items()}
        names = [item.name for item in self.schema.fields]
        for said in self.options.plain_numbers:
            if stored.get(said, said) not in names:
                hint = nearest(said, names, what="plain_numbers")
                raise ConfigError(f"plain_numbers: no field {said!r} is taken", hint=hint)
        return frozenset(stored.get(said, said) for said in self.options.plain_numbers)

    @property
    def text_fields(self) -> tuple[str, ...]:
        if not self.options.scan:
            return ()
        numeric = self.source.numeric_texts()
        return tuple(f.name for f in self.schema.fields if f.kind == "string" and f.name not in numeric)


@dataclass(frozen=True)
class PlacedFinding:
    """A finding and the row of its split's columns in this part; no split when the record was dropped."""

    split: str | None
    row: int
    finding: FoundIn


@dataclass
class PartResult:
    """Columns by split in source order, and what a report needs."""

    number: int
    size_bytes: int
    columns: dict[str, Columns]
    found: list[PlacedFinding]
    bad: list[BadRecord]
    report: ReviewReport | None
    """None of a part that was set aside."""
    num_read: int
    unpacked_bytes: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Records that the selection does not take, by reason."""
    contents: list[tuple[int, bytes]] = field(default_factory=list)
    name: str = ""
    """What the part is of, for people: its file, or the first of several."""
    first_record: int = 0

    def without_records(self, reason: str) -> PartResult:
        """Set aside: one record of the quarantine instead, without bytes."""
        bad = BadRecord(self.first_record, self.name, f"a whole part of the source was set aside: {reason}")
        return replace(self, columns={}, found=[], bad=[bad], report=None, contents=[])


def read_part(part: Part, *, plan: ImportPlan, subject_key: memoryview) -> PartResult:
    """`process_part`, with a part that passes a limit set aside by name."""
    if part.refusal:
        return set_aside(part, plan=plan, reason=part.refusal)
    try:
        return process_part(part, plan=plan, subject_key=subject_key)
    except LimitPassed as error:
        return set_aside(part, plan=plan, reason=error.message)
    except MemoryError:
        return set_aside(part, plan=plan, reason="reading it takes more memory than it may")


def set_aside(part: Part, *, plan: ImportPlan, reason: str) -> PartResult:
    """A part of which nothing could be read: one record of the quarantine, without its bytes."""
    result = replace(_nothing_of(part, plan=plan), num_read=max(1, part.num_records))
    return result.without_records(reason)


def _nothing_of(part: Part, *, plan: ImportPlan) -> PartResult:
    notes = Counter(plan.notes if part.number == 0 else {})
    name = plan.source.name_of(part)
    return PartResult(
        part.number,
        part.size_bytes,
        {},
        [],
        [],
        None,
        0,
        notes=notes,
        name=name,
        first_record=part.first_record,
    )


def process_part(part: Part, *, plan: ImportPlan, subject_key: memoryview) -> PartResult:
    """Raises DataError and ReviewRejected as readers and gate do, and ConfigError when a model of the
    policy is not on this machine; then nothing of the part is used."""
    screener = Screener(
        policy=plan.policy,
        scanner=plan.scanner,
        text_fields=plan.text_fields,
        media_fields=plan.media_fields,
        bytes_fields=plan.bytes_fields,
        plain_numbers=plan.plain_numbers,
        source_names=plan.source.names(),
        is_scanned=plan.options.scan,
        subject_key=subject_key,
    )
    pieces: dict[str, list[Columns]] = {}
    counts: Counter[str] = Counter()
    result = _nothing_of(part, plan=plan)
    for chunk in plan.source.read(part):
        for note, count in chunk.notes.items():
            result.notes[public_text(note)] += count
        result.unpacked_bytes += chunk.size_bytes
        require_ratio(result.unpacked_bytes, source_bytes=plan.source_bytes)
        chunk, left_out = plan.selection.choose(chunk)
        result.left_out += left_out
        result.num_read += chunk.num_records + len(chunk.bad) + left_out.total()
        if plan.is_for_contents:
            result.contents += plan.selection.contents(chunk)
            continue
        screened = screener.screen(chunk)
        result.notes.update(_not_finite(screened.columns))
        result.bad += sorted(map(_public_reason, (*chunk.bad, *screened.bad)), key=lambda bad: bad.record)
        splits = _splits(screened, chunk, plan=plan)
        result.found += _place(screened.found, splits=splits, counts=counts)
        if plan.tokenizer is not None and splits:
            screened.columns["text"] = plan.tokenizer.encode_many(list(each(screened.columns["text"])))
        for split, rows in splits.items():
            counts[split] += len(rows)
            columns = take(screened.columns, rows) if len(splits) > 1 else screened.columns
            pieces.setdefault(split, []).append(to_store(plan.stored_schema, columns))
    result.columns = {
        split: columns[0] if len(columns) == 1 else concatenate_columns(columns)
        for split, columns in pieces.items()
    }
    result.report = screener.report()
    if not plan.text_fields:
        result.report = replace(result.report, records=result.num_read - result.left_out.total())
    return result


def _public_reason(bad: BadRecord) -> BadRecord:
    """Reasons are counted in the open."""
    return bad if is_public(bad.reason) else replace(bad, reason=public_text(bad.reason))


def _not_finite(columns: Mapping[str, Values]) -> Counter[str]:
    """Records with NaN or infinity in a field of floats. The sum tells whether there is any to look for."""
    found: Counter[str] = Counter()
    for name, values in columns.items():
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fc" or not values.size:
            continue
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum()):
                continue
        rows = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if rows.any():
            found[f"field {name!r} holds NaN or infinity"] += int(rows.sum())
    return found


def quarantine_columns(bad: Sequence[BadRecord]) -> Columns:
    values: dict[str, Values] = {
        "record": [record.record for record in bad],
        "place": [record.place for record in bad],
        "reason": [record.reason for record in bad],
        "raw": [record.raw for record in bad],
    }
    return to_store(QUARANTINE, values)


def _splits(screened: Screened, chunk: Chunk, *, plan: ImportPlan) -> dict[str, np.ndarray]:
    """Row numbers of the kept records by split; splits without rows are left out."""
    num_rows = len(screened.numbers)
    if not num_rows:
        return {}
    if not plan.holdout or chunk.split not in (None, TRAIN):
        return {chunk.split or TRAIN: np.arange(num_rows)}
    out = held_out(_contents(screened, plan), key=plan.holdout_key, share=plan.holdout)
    halves = {TRAIN: np.flatnonzero(~out), VALIDATION: np.flatnonzero(out)}
    return {split: rows for split, rows in halves.items() if len(rows)}


def _contents(screened: Screened, plan: ImportPlan) -> Sequence[str | bytes]:
    """What duplicates have in common: the picture or sound, else the text, else the whole row."""
    for name in (*plan.source.media(), "text"):
        if name in screened.columns:
            return [
                value if isinstance(value, str) else bytes(value) for value in each(screened.columns[name])
            ]
    rows = zip(*(_row_bytes(screened.columns[item.name]) for item in plan.schema.fields), strict=True)
    return [b"\0".join(row) for row in rows]


def _row_bytes(values: Values) -> list[bytes]:
    return [
        value.encode(errors="surrogatepass") if isinstance(value, str) else np.asarray(value).tobytes()
        for value in each(values)
    ]


def _place(
    found: Sequence[FoundIn], *, splits: dict[str, np.ndarray], counts: Counter[str]
) -> list[PlacedFinding]:
    """Turn positions among the kept records of a chunk into rows of the part's split."""
    if not found:
        return []
    where: dict[int, tuple[str, int]] = {}
    for split, rows in splits.items():
        where |= {row: (split, counts[split] + index) for index, row in enumerate(rows.tolist())}
    placed = [(None, 0) if item.position is None else where[item.position] for item in found]
    return [PlacedFinding(split, row, item) for (split, row), item in zip(placed, found, strict=True)]

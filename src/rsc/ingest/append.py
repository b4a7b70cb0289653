"""Adding to a data set: a new version that holds the records of the one before and those of a source.

    the version before, opened by the caller -> its samples, findings and quarantine, as they are
    -> the source through the gate, under the same policy, behind them -> one version, to be reviewed anew

Both halves have codes of persons under one key, which the new version keeps in its split `subject-key`, so
`trace` and `erase` find a person in either. The key that wraps the new version is the old one's: what is
added to a set lives no longer than the set would have.

Not covered: duplicates of records that the set holds already, which were redacted since.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsc.clock import timestamp
from rsc.errors import ConfigError, DataError
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.screen import merge_reports
from rsc.ingest.sink import FINDINGS_SPLIT, QUARANTINE_SPLIT, Totals
from rsc.ingest.tokenize import TOKENIZER_SPLIT
from rsc.keys.secret import SecretKey
from rsc.review.report import ReviewReport, report_from_json
from rsc.store.bulk.locations import Location
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field, Schema
from rsc.store.writer import DatasetWriter

SUBJECT_KEY_SPLIT = "subject-key"
SUBJECT_KEY_SCHEMA = Schema((Field("key", "bytes"),))
_NOT_DATA = (FINDINGS_SPLIT, QUARANTINE_SPLIT, TOKENIZER_SPLIT, SUBJECT_KEY_SPLIT)


@dataclass(frozen=True)
class Base:
    """The version that an import adds to, with its data key and that of its codes: the caller's to close."""

    dataset: Dataset
    key: SecretKey
    subject_key: SecretKey

    @property
    def samples(self) -> dict[str, int]:
        """Samples by split of data."""
        splits = self.dataset.splits
        return {name: info.num_samples for name, info in splits.items() if name not in _NOT_DATA}

    @property
    def policy(self) -> bytes:
        return self.dataset.read_review("policy.toml") or b""

    def require_newest(self, location: Location) -> None:
        """Raises DataError where another import or an erasure has made a version meanwhile."""
        newest = Dataset.open(location, name=self.dataset.name)
        if newest.root_hash != self.dataset.root_hash:
            raise DataError(
                f"{self.dataset.name} has version {newest.version} now, this import adds to "
                f"{self.dataset.version}; nothing was committed",
                hint="import again: it adds to the newest version",
            )

    def require_fit(self, plan: ImportPlan, *, policy: bytes) -> None:
        """Raises ConfigError where the source would not be stored as the version before is."""
        told = f"{self.dataset.name} version {self.dataset.version}"
        if policy != self.policy:
            raise ConfigError(
                f"the policy is another one than that of {told}, under which its records were redacted",
                hint="leave --policy and --safeguard out, or import everything under the new policy",
            )
        mine = plan.tokenizer.sha256 if plan.tokenizer else None
        theirs = (self.dataset.facts.get("tokenizer") or {}).get("sha256")
        if mine != theirs:
            raise ConfigError(
                f"{told} was stored {'with another tokenizer' if theirs else 'as text, without a tokenizer'}",
                hint="give the tokenizer.json that it was imported with"
                if theirs
                else "leave tokenizer= out, or import everything as tokens",
            )
        for split in self.samples:
            _require_same(self.dataset.splits[split].schema, plan.stored_schema, told=told)

    def schemas(self, planned: dict[str, Schema]) -> dict[str, Schema]:
        """The splits of both halves."""
        older = {name: info.schema for name, info in self.dataset.splits.items() if name != TOKENIZER_SPLIT}
        return {**older, **planned, SUBJECT_KEY_SPLIT: SUBJECT_KEY_SCHEMA}

    def copy(self, writer: DatasetWriter, *, totals: Totals) -> None:
        """Append everything that the version holds, and let `totals` go on from there."""
        numbers = [0]
        for split in self.dataset.splits:
            if split in (TOKENIZER_SPLIT, SUBJECT_KEY_SPLIT):
                continue
            reader = self.dataset.split(split, key=self.key)
            for columns in reader.iterate():
                writer.append(split, columns)
                if split in (FINDINGS_SPLIT, QUARANTINE_SPLIT):
                    numbers.append(int(np.max(np.asarray(columns["record"]))) + 1)
            reader.close()
        key = Ragged.from_list([self.subject_key.view], dtype=np.dtype(np.uint8))
        writer.append(SUBJECT_KEY_SPLIT, {"key": key})
        totals.samples = Counter(self.samples)
        totals.first_record = max(*numbers, self._records.get("read", 0))

    def report(self, added: ReviewReport) -> ReviewReport:
        """The report on both halves. The sentences are those of `added`, which has read this one's too."""
        before = report_from_json(self.dataset.read_review("report.json") or b"")
        count, version = sum(self.samples.values()), self.dataset.version
        notes = [
            *added.notes,
            f"{count} records come from version {version}, as they are there",
            *(f"version {version}: {note}" for note in before.notes),
        ]
        if before.rules != added.rules:
            notes.append(f"version {version} was scanned by other rules than what was added")
        return merge_reports([added, before], notes=notes)

    def facts(self, added: dict[str, Any]) -> dict[str, Any]:
        """Facts of both halves: sums of counts; options and source are those of what was added."""
        before = self.dataset.facts
        records = {name: count + self._records.get(name, 0) for name, count in added["records"].items()} | {
            "stored": added["records"]["stored"]
        }
        sums = {
            name: dict(Counter(before.get(name, {})) + Counter(added[name])) for name in ("notes", "left_out")
        }
        quarantine = before.get("quarantine", {})
        return {
            **added,
            **sums,
            "records": records,
            "quarantine": {
                "reasons": dict(
                    Counter(quarantine.get("reasons", {})) + Counter(added["quarantine"]["reasons"])
                ),
                "records": [*quarantine.get("records", []), *added["quarantine"]["records"]],
            },
            "appended_to": self.dataset.root_hash,
            "collected": before.get("collected") or timestamp(self.dataset.created),
        }

    @property
    def _records(self) -> dict[str, int]:
        records: dict[str, int] = self.dataset.facts.get("records", {})
        return records


def copied_key(key: SecretKey) -> SecretKey:
    """The same key, to be closed by itself."""
    return SecretKey.from_buffer(bytearray(key.view))


def _require_same(before: Schema, added: Schema, *, told: str) -> None:
    here, there = ({item.name: item for item in schema.fields} for schema in (added, before))
    for name in [*there, *(name for name in here if name not in there)]:
        if here.get(name) != there.get(name):
            raise ConfigError(
                f"field {name!r}: {_kind(there.get(name))} in {told}, {_kind(here.get(name))} in the source",
                hint="--fields takes a part of the fields, and schema.FIELD=TYPE gives one the type it had",
            )


def _kind(item: Field | None) -> str:
    if item is None:
        return "not there"
    told = item.kind if item.kind in ("string", "bytes") else f"{item.kind} {item.dtype} {list(item.shape)}"
    return f"{told}, values may be missing" if item.missing is not None else told

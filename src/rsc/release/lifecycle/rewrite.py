"""A version again without some records: under a new data key, with its review carried over.

Not covered: what the gate did not find (subject.py).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsc.audit.log import AuditLog
from rsc.clock import Clock, timestamp
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.keys.envelope import data_key_context, new_envelope
from rsc.keys.secret import SecretKey
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.carried_review import CARRIED, Carry
from rsc.release.agent.facts import collected
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.kek_index import Providers
from rsc.release.lifecycle.subject import (
    FINDINGS,
    QUARANTINE,
    SUBJECT_KEY,
    SUBJECT_KEY_SCHEMA,
    Hit,
    holds_subject_key,
    is_quarantined,
    subject_key,
    texts,
)
from rsc.review.policy import parse_policy
from rsc.store.dataset import Dataset, DatasetRef, DatasetWriter, list_datasets
from rsc.store.format.columns import Columns, Ragged
from rsc.store.format.suites import suite_for

Column = np.ndarray[Any, Any] | Ragged

REASON = "erasure of a person's records"


@dataclass(frozen=True)
class ErasureContext:
    """What an erasure works with."""

    workspace: Workspace
    agent: KeyAgent
    providers: Providers
    audit: AuditLog
    clock: Clock
    user: str


def rewrite(house: ErasureContext, old: Dataset, *, hits: list[Hit], subject: str) -> DatasetRef:
    """The next version: the same records in the same order, less those of the hits."""
    if SUBJECT_KEY in old.splits and not holds_subject_key(old):
        raise ConfigError(
            f"{old.name} version {old.version} has a split {SUBJECT_KEY!r} that its source brought in",
            hint="nothing was erased: import it again with that split renamed, then expire this version",
        )
    policy = parse_policy(old.read_review("policy.toml") or b"")
    envelope = old.envelope()
    request = KeyRequest("review", house.user, data=old.name, version=old.version)
    removal = _Removal.of(hits, subject=subject)
    fresh, new_key = new_envelope(
        house.providers[envelope.provider],
        kek_id=envelope.kek_id,
        context=data_key_context(old.name),
        clock=house.clock,
    )
    schemas = {**{name: split.schema for name, split in old.splits.items()}, SUBJECT_KEY: SUBJECT_KEY_SCHEMA}
    with (
        house.agent.release(request) as old_key,
        new_key,
        DatasetWriter.create(
            house.workspace.bulk,
            name=old.name,
            schemas=schemas,
            key=new_key,
            envelope=fresh,
            clock=house.clock,
            suite=suite_for(policy.cipher_or(house.workspace.settings.store.cipher)),
        ) as writer,
    ):
        for split in old.splits:
            if split != SUBJECT_KEY:
                _copy(writer, old, split=split, key=old_key, removal=removal)
        with subject_key(old, key=old_key) as codes_key:
            writer.append(SUBJECT_KEY, {"key": Ragged.from_list([codes_key.view], dtype=np.dtype(np.uint8))})
        ref = writer.commit(
            policy=old.read_review("policy.toml") or b"",
            report=old.read_review("report.json") or b"",
            facts={**old.facts, "collected": timestamp(collected(old)), "erased_from": old.root_hash},
        )
    _carry(house, old, Dataset.open(house.workspace.bulk, name=ref.name, version=ref.version))
    return ref


def finish_carries(house: ErasureContext) -> None:
    """Bring the review along for versions that an erasure wrote before it was stopped."""
    for name, numbers in list_datasets(house.workspace.bulk):
        versions = [Dataset.open(house.workspace.bulk, name=name, version=number) for number in numbers]
        by_root = {dataset.root_hash: dataset for dataset in versions}
        for new in versions:
            old = by_root.get(new.facts.get("erased_from", ""))
            if old is not None and new.read_review(CARRIED) is None:
                _carry(house, old, new)


def _carry(house: ErasureContext, old: Dataset, new: Dataset) -> None:
    """Bring decisions and approvals along, and sign what makes them count for the new root. carried.json
    comes last: where it lies, all of it is done."""
    for name in old.list_review():
        is_verdict = name == "decisions.json" or name.startswith("approvals/")
        if is_verdict and new.read_review(name) is None:
            new.write_review(name, old.read_review(name) or b"")
    before = json.loads(old.read_review(CARRIED) or b"{}")
    gone = {split: info.num_samples - new.splits[split].num_samples for split, info in old.splits.items()}
    carry = Carry(
        approved_root_hashes=(old.root_hash, *before.get("approved_root_hashes", ())),
        from_root_hash=old.root_hash,
        root_hash=new.root_hash,
        removed={split: count for split, count in gone.items() if count},
        reason=REASON,
    )
    house.audit.append(
        "review_carried",
        data=new.name,
        version=new.version,
        from_root_hash=old.root_hash,
        root_hash=new.root_hash,
        removed=carry.removed,
        user=house.user,
    )
    new.write_review(CARRIED, carry.signed(house.audit.signer).to_json())


@dataclass(frozen=True)
class _Removal:
    """Which samples go, per split."""

    samples: dict[str, np.ndarray[Any, np.dtype[np.int64]]]
    records: set[int]
    subject: str

    @classmethod
    def of(cls, hits: list[Hit], *, subject: str) -> _Removal:
        samples: dict[str, set[int]] = defaultdict(set)
        for hit in hits:
            if hit.split:
                samples[hit.split].add(hit.sample)
        ordered = {split: np.array(sorted(found), dtype=np.int64) for split, found in samples.items()}
        return cls(ordered, {hit.record for hit in hits if hit.record >= 0}, subject)

    def kept(self, split: str, columns: Columns, *, first: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of a frame stay; `first` is the number of its first sample."""
        num_rows = len(next(iter(columns.values())))
        if split == FINDINGS:
            erased = np.array(sorted(self.records), dtype=np.int64)
            is_gone = np.isin(np.asarray(columns["record"]).astype(np.int64), erased)
            places = zip(texts(columns["split"]), np.asarray(columns["sample"]), strict=True)
            is_gone |= np.array(
                [int(sample) in self.samples.get(name, ()) for name, sample in places], dtype=np.bool_
            )
            return ~is_gone
        if split == QUARANTINE:
            raw = columns["raw"]
            assert isinstance(raw, Ragged), "its schema says bytes"
            named = [is_quarantined(bytes(raw[row]), subject=self.subject) for row in range(num_rows)]
            return ~np.array(named, dtype=np.bool_)
        gone = self.samples.get(split, np.empty(0, dtype=np.int64))
        return ~np.isin(np.arange(first, first + num_rows), gone)

    def renumbered(self, columns: Columns) -> Columns:
        """Findings point to samples by number: each moves up by the removed samples before it."""
        moved = np.array(columns["sample"], copy=True)
        for row, split in enumerate(texts(columns["split"])):
            moved[row] -= np.searchsorted(
                self.samples.get(split, np.empty(0, dtype=np.int64)), int(moved[row])
            )
        return {**columns, "sample": moved}


def _copy(writer: DatasetWriter, old: Dataset, *, split: str, key: SecretKey, removal: _Removal) -> None:
    first = 0
    for columns in old.split(split, key=key).iterate():
        kept = removal.kept(split, columns, first=first)
        first += len(kept)
        rows = {name: _take(column, kept) for name, column in columns.items()}
        if split == FINDINGS:
            rows = removal.renumbered(rows)
        if kept.any():
            writer.append(split, rows)


def _take(column: Column, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Column:
    if not isinstance(column, Ragged):
        taken: np.ndarray[Any, Any] = column[kept]
        return taken
    lengths = np.diff(column.offsets)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths[kept], dtype=np.int64)])
    return Ragged(values=column.values[np.repeat(kept, lengths)], offsets=offsets)

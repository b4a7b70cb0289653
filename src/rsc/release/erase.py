"""Erasure of one person's records: rewrite what is left, end what held them, mark what was trained on them.

    trace -> newest version without the records, under a new data key -> review carried with its delta
          -> every version that held them expires -> runs and exports are marked -> traced again

A crash leaves both versions or the new one alone; doing it again finishes. The new version keeps the
date of the old one, so nobody's data lives longer because somebody else's was erased.

Not covered: models keep what they learned; they are marked, and it is for a person to decide whether to
train again. What the gate did not find (subject.py). Copies outside the workspace.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsc.audit.log import AuditLog
from rsc.clock import Clock, timestamp
from rsc.config import Workspace
from rsc.events import EventLog
from rsc.release.agent import KeyAgent
from rsc.release.carry import CARRIED, Carry
from rsc.release.facts import collected
from rsc.release.request import KeyRequest
from rsc.release.retention import Expired, Providers, expire
from rsc.release.subject import (
    FINDINGS,
    QUARANTINE,
    SUBJECT_KEY,
    SUBJECT_KEY_SCHEMA,
    Hit,
    is_quarantined,
    subject_key,
    texts,
)
from rsc.release.trace import DerivedRun, Trace, trace
from rsc.store.columns import Columns, Ragged
from rsc.store.dataset import Dataset, DatasetRef, DatasetWriter
from rsc.store.keys import data_key_context, new_envelope
from rsc.store.secret import SecretKey
from rsc.store.staging import only_writer

Column = np.ndarray[Any, Any] | Ragged

MARK = "erasures.jsonl"
"""File in a run and in each of its exports: which data it was trained on lost records since."""


@dataclass(frozen=True, slots=True)
class Erased:
    removed: dict[str, int]
    """Records per data set."""
    written: tuple[DatasetRef, ...]
    expired: tuple[Expired, ...]
    marked: tuple[DerivedRun, ...]
    left: Trace
    """What a second search still finds: no hits."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _House:
    workspace: Workspace
    agent: KeyAgent
    providers: Providers
    audit: AuditLog
    clock: Clock
    user: str


def erase(
    workspace: Workspace,
    subject: str,
    *,
    agent: KeyAgent,
    providers: Providers,
    audit: AuditLog,
    clock: Clock,
    user: str,
) -> Erased:
    """Erase every record in which the gate found `subject`. The log gets counts, never the subject.

    Raises ConfigError while an import into one of the data sets runs; calling it again does the rest.
    """
    house = _House(workspace, agent, providers, audit, clock, user)
    found = trace(workspace, subject, agent=agent, audit=audit, user=user)
    hits: dict[str, list[Hit]] = defaultdict(list)
    for hit in found.hits:
        hits[hit.data].append(hit)
    written, expired = [], []
    for name, about in hits.items():
        with only_writer(workspace.data / name):  # an import would add a version that nobody looked through
            newest = Dataset.open(workspace.bulk, name=name)
            in_newest = [hit for hit in about if hit.version == newest.version]
            if in_newest:
                written.append(_rewrite(house, newest, hits=in_newest, subject=subject))
            for version in sorted({hit.version for hit in about}):
                expired.append(_expire(house, name, version))
    for run in found.runs:
        _mark(house, run)
    removed = {name: len({(hit.version, hit.record) for hit in about}) for name, about in hits.items()}
    audit.append("subject_erased", user=user, removed=removed, runs=[run.run for run in found.runs])
    left = trace(workspace, subject, agent=agent, audit=audit, user=user)
    return Erased(removed, tuple(written), tuple(expired), found.runs, left)


def _rewrite(house: _House, old: Dataset, *, hits: list[Hit], subject: str) -> DatasetRef:
    """The next version: the same records in the same order, less those of the hits."""
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
    _carry(house, old, ref, removed=removal.counts)
    return ref


@dataclass
class _Removal:
    """Which samples go, and how many went, per split."""

    samples: dict[str, np.ndarray[Any, np.dtype[np.int64]]]
    records: set[int]
    subject: str
    counts: dict[str, int]

    @classmethod
    def of(cls, hits: list[Hit], *, subject: str) -> _Removal:
        samples: dict[str, set[int]] = defaultdict(set)
        for hit in hits:
            if hit.split:
                samples[hit.split].add(hit.sample)
        ordered = {split: np.array(sorted(found), dtype=np.int64) for split, found in samples.items()}
        return cls(ordered, {hit.record for hit in hits}, subject, defaultdict(int))

    def kept(self, split: str, columns: Columns, *, first: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of a frame stay; `first` is the number of its first sample."""
        num_rows = len(next(iter(columns.values())))
        if split == FINDINGS:
            erased = np.array(sorted(self.records), dtype=np.int64)
            return ~np.isin(np.asarray(columns["record"]).astype(np.int64), erased)
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
        removal.counts[split] += int(np.count_nonzero(~kept))
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


def _carry(house: _House, old: Dataset, ref: DatasetRef, *, removed: dict[str, int]) -> None:
    """Bring decisions and approvals along, and sign what makes them count for the new root."""
    new = Dataset.open(house.workspace.bulk, name=ref.name, version=ref.version)
    for name in old.list_review():
        if name == "decisions.json" or name.startswith("approvals/"):
            new.write_review(name, old.read_review(name) or b"")
    before = json.loads(old.read_review(CARRIED) or b"{}")
    carry = Carry(
        approved_root_hashes=(old.root_hash, *before.get("approved_root_hashes", ())),
        from_root_hash=old.root_hash,
        root_hash=new.root_hash,
        removed={split: count for split, count in removed.items() if count},
        reason="erasure of a person's records",
    )
    new.write_review(CARRIED, carry.signed(house.audit.signer).to_json())
    house.audit.append(
        "review_carried",
        data=new.name,
        version=new.version,
        from_root_hash=old.root_hash,
        root_hash=new.root_hash,
        removed=carry.removed,
        user=house.user,
    )


def _expire(house: _House, name: str, version: int) -> Expired:
    return expire(
        house.workspace,
        name,
        providers=house.providers,
        audit=house.audit,
        clock=house.clock,
        user=house.user,
        version=version,
        reason="erasure of a person's records",
    )


def _mark(house: _House, run: DerivedRun) -> None:
    """Write into the run and its exports that their data lost records."""
    folder = house.workspace.runs / run.run
    for place in (folder, *map(Path, run.exports)):
        mark = EventLog(place / MARK, clock=house.clock)
        mark.append("data_erased", data=run.data, version=run.version)
        mark.close()
    house.audit.append("model_marked", run=run.run, data=run.data, version=run.version)

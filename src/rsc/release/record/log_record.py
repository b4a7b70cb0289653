"""What the log says should be so now: one replay of it, kept up to date.

Keys are released by it: what runs were trained on, who may review, who approved or rejected what, which root
a version has. Each stretch that is read is added up to the signed root of the log, so an entry that was
changed on disk is an error and never a decision.

Where `config.toml` names a witness, its newest checkpoint must be passed through too: a log that was cut back
or begun anew behind it releases nothing.

Not covered: a log that was cut back or begun anew together with everything that it told of, where there is no
witness; a witness's file that its keeper does not renew.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rsc.audit.log import AuditLog
from rsc.audit.merkle import Frontier, leaf_hash
from rsc.audit.witness import Witness
from rsc.errors import ConfigError, GateRefused, IntegrityError
from rsc.release.record.run_origin import ATTESTED, BEGAN, RunOrigin, Version, origin_from
from rsc.review.approval.enrolment import Enrolment, enrolment_from

_COMES = ("import", "review_carried", "version_attested")
"""Kinds of records with which a version begins."""
_EXPORTS = ("run_export_began", "exported")
_BULK = (b'"kind":"key_released"', b'"kind":"lease_ended"', b'"kind":"key_denied"')
"""How records begin, behind their time, that say nothing which is kept here: nearly all of a log."""
_TIME_BYTES = len('{"time":"2026-11-21T09:00:00.000Z",')


@dataclass(frozen=True, slots=True)
class RecordedValue:
    """A value, the number of the record that says it, and the account that it was written for."""

    index: int
    value: str
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    run: str
    place: str
    digest: str
    """SHA-256 over the names and digests of its files; empty for one that did not finish."""


@dataclass
class Recorded:
    versions: dict[Version, RecordedValue] = field(default_factory=dict)
    """(name, version) -> its root hash."""
    places: dict[str, Version] = field(default_factory=dict)
    """Root hash -> (name, version)."""
    verdicts: dict[str, dict[str, RecordedValue]] = field(default_factory=dict)
    """Root hash -> approver -> `approve` or `reject`, the last one."""
    came_from: dict[str, str] = field(default_factory=dict)
    """Root hash of a version that lost records -> that of the one before."""
    added_to: dict[str, str] = field(default_factory=dict)
    """Root hash of a version that an import added records to -> that of the one before. It is reviewed
    anew."""
    importers: dict[str, int] = field(default_factory=dict)
    """Root hash -> account that brought the data in; not of imports before accounts were recorded."""
    reviewers: dict[str, Enrolment] = field(default_factory=dict)
    """Public key -> who may review under it."""
    first_reviewer: Enrolment | None = None
    """The root of trust."""
    refused_enrolments: list[int] = field(default_factory=list)
    """Numbers of records that enrol somebody without the right to."""
    runs: dict[str, RunOrigin] = field(default_factory=dict)
    exports: dict[tuple[str, str], Exported] = field(default_factory=dict)
    """(run, place) -> what is known of it."""
    destroyed: dict[tuple[str, str], RecordedValue] = field(default_factory=dict)
    """(provider, key id) of every key that was destroyed -> how."""
    ended: dict[Version, RecordedValue] = field(default_factory=dict)
    """Versions whose key was destroyed -> the hash of the root.json that stays of them; empty where an older
    RSC left their papers as they were."""
    promises: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a promise -> the last record of what became of it."""
    generation: int = 0
    """Grows with every record that a review can depend on."""

    def line(self, root_hash: str) -> list[str]:
        """The root itself and those that it came from by removals, newest first."""
        roots = [root_hash]
        while (before := self.came_from.get(roots[-1])) is not None and before not in roots:
            roots.append(before)
        return roots

    def verdicts_on(self, root_hash: str) -> dict[str, RecordedValue]:
        """Those on the version itself and on what it came from; the nearer one counts."""
        found: dict[str, RecordedValue] = {}
        for root in reversed(self.line(root_hash)):
            found |= self.verdicts.get(root, {})
        return found

    def ancestors(self, version: Version) -> list[Version]:
        """The versions that one was written from, by removals or additions: whoever is in it was in them, or
        may have been."""
        said = self.versions.get(version)
        before = None if said is None else self._written_from(said.value)
        roots: list[str] = []
        while before is not None and before not in roots:
            roots.append(before)
            before = self._written_from(before)
        return [self.places[root] for root in roots if root in self.places]

    def root_of(self, version: Version, *, root_hash: str) -> str:
        """The root by which the log knows what lies here under `root_hash`: of an ended version the one that
        it had while it lived."""
        ended, said = self.ended.get(version), self.versions.get(version)
        return said.value if ended and said and ended.value == root_hash else root_hash

    def _written_from(self, root_hash: str) -> str | None:
        return self.came_from.get(root_hash) or self.added_to.get(root_hash)

    def importer(self, root_hash: str) -> int | None:
        """The account that brought the data in of which this version is what is left."""
        return self.importers.get(self.line(root_hash)[-1])

    def reviewer(self, name: str) -> Enrolment | None:
        return next((each for each in self.reviewers.values() if each.name == name), None)

    def persons(self) -> int:
        """Different accounts of those who may review."""
        return len({each.uid for each in self.reviewers.values()})

    def add(self, entry: Mapping[str, Any]) -> None:
        kind, index = entry["kind"], entry["index"]
        known = self.generation
        self.generation += 1
        if kind in _COMES:
            self.versions[entry["data"], entry["version"]] = RecordedValue(index, entry["root_hash"])
            self.places[entry["root_hash"]] = (entry["data"], entry["version"])
            if "appended_to" in entry:
                self.added_to[entry["root_hash"]] = entry["appended_to"]
        if kind == "import" and "uid" in entry:
            self.importers[entry["root_hash"]] = entry["uid"]
        elif kind == "review_carried":
            self.came_from[entry["root_hash"]] = entry["from_root_hash"]
        elif kind in ("approve", "reject"):
            before = self.verdicts.get(entry["root_hash"], {})
            said = RecordedValue(index, kind, entry.get("uid"))
            self.verdicts[entry["root_hash"]] = {**before, entry["approver"]: said}
        elif kind == "reviewer_enrolled":
            self._enrol(entry)
        elif kind == "data_expired":
            papers = entry.get("papers", {})
            for version in entry["versions"]:
                self.ended[entry["data"], version] = RecordedValue(index, papers.get(str(version), ""))
        elif kind in (BEGAN, ATTESTED):
            self.runs.setdefault(entry["run"], origin_from(entry))
        else:
            self.generation = known
            self._add_other(entry)

    def _add_other(self, entry: Mapping[str, Any]) -> None:
        """What no review depends on."""
        kind, index = entry["kind"], entry["index"]
        if kind == "promise":
            self.promises[entry["promise"]] = entry
        elif kind in _EXPORTS and "path" in entry:
            exported = Exported(entry["run"], entry["path"], entry.get("sha256", ""))
            self.exports[entry["run"], entry["path"]] = exported
        elif kind in ("key_destroyed", "key_rotated"):
            place = _destroyed_key(kind, entry)
            if place is not None:
                self.destroyed[place] = RecordedValue(index, kind)

    def _enrol(self, entry: Mapping[str, Any]) -> None:
        try:
            enrolment = enrolment_from(entry)
        except ConfigError:
            self.refused_enrolments.append(entry["index"])
            return
        if not enrolment.counts_after(self.reviewers):
            self.refused_enrolments.append(entry["index"])
            return
        self.first_reviewer = self.first_reviewer or enrolment
        others = {key: each for key, each in self.reviewers.items() if each.name != enrolment.name}
        self.reviewers = {**others, enrolment.public_key: enrolment}


class LiveRecord:
    """The record of one log as it grows; the threads of a process share it."""

    def __init__(self, audit: AuditLog, *, witness: Path | None = None) -> None:
        self._audit = audit
        self._witness = witness
        self._lock = threading.Lock()
        self._recorded = Recorded()
        self._frontier = Frontier()
        self._roots = {0: Frontier().root()}
        """By size, for the sizes that the witness has seen."""

    def now(self) -> Recorded:
        """Everything that the log says by now.

        Raises IntegrityError for a log that does not add up, GateRefused where the witness contradicts it.
        """
        with self._lock:
            seen = self._seen()
            if any(size <= self._frontier.size and size not in self._roots for size in seen):
                self._recorded, self._frontier = Recorded(), Frontier()  # roots in the past are needed
            self._read_on(wanted=seen)
            if seen:
                self._require_passed(seen)
            return self._recorded

    def _read_on(self, *, wanted: Iterable[int]) -> None:
        start = self._frontier.size
        stretch = self._audit.read_on(start)
        if stretch.size < start:
            raise IntegrityError(
                f"the audit log has {stretch.size} records and had {start} a moment ago",
                hint="it was cut back: restore it from a copy",
                outcome="truncated",
            )
        try:
            for index, entry in enumerate(stretch.entries, start):
                self._frontier.add(leaf_hash(entry))
                if index + 1 in wanted:
                    self._roots[index + 1] = self._frontier.root()
                if not entry.startswith(_BULK, _TIME_BYTES):
                    self._recorded.add({"index": index, **json.loads(entry)})
            is_whole = self._frontier.size == stretch.size and self._frontier.root() == stretch.root
        except BaseException:
            self._recorded, self._frontier = Recorded(), Frontier()
            raise
        if not is_whole:
            self._recorded, self._frontier = Recorded(), Frontier()
            raise IntegrityError(
                "records of the audit log were changed: they do not add up to its signed root",
                hint="`rsc audit verify` lists every damaged record; restore the folder from a copy",
                outcome="frame",
            )

    def _seen(self) -> dict[int, bytes]:
        """The newest view of the witness, by size; empty where none is configured."""
        if self._witness is None:
            return {}
        known = Witness(self._witness).known()
        if not known:
            raise GateRefused(
                f"the witness {self._witness} of config.toml holds no checkpoint",
                hint=f"bring its file back, or begin one: rsc audit checkpoint --witness {self._witness}",
            )
        newest = max(known)
        return {newest: known[newest]}

    def _require_passed(self, seen: Mapping[int, bytes]) -> None:
        for size, root in seen.items():
            if self._roots.get(size) != root:
                raise GateRefused(
                    f"the audit log is not the one that its witness saw: {self._frontier.size} records here, "
                    f"{size} there",
                    hint="the log was cut back or rewritten: `rsc audit verify --witness "
                    f"{self._witness}` says where",
                )


def replay(entries: Iterable[Mapping[str, Any]]) -> Recorded:
    recorded = Recorded()
    for entry in entries:
        recorded.add(entry)
    return recorded


def _destroyed_key(
    kind: Literal["key_destroyed", "key_rotated"], entry: Mapping[str, Any]
) -> tuple[str, str] | None:
    """None for records of an older form, which do not say whose key it was."""
    provider = entry.get("provider" if kind == "key_destroyed" else "old_provider")
    return None if provider is None else (provider, entry["kek_id" if kind == "key_destroyed" else "old"])

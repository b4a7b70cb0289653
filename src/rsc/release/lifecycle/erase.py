"""Erasure of one person's records: rewrite what is left, end what held them, mark what was trained on them.

    trace -> newest version without the records, under a new data key -> review carried with its delta
          -> what is about to end is written into the log -> runs and exports are marked, also those that were
          trained on older versions, and, as such, those on versions that could not be searched
          -> every version that held the records expires -> traced again

No import runs meanwhile. A crash leaves both versions or the new one alone, and the log knows what was to
end, although the records can no longer be found once a key is gone: the next erasure, of anybody,
finishes it. The new version keeps the date of the old one, so nobody's data lives longer because somebody
else's was erased.

Not covered: models keep what they learned; they are marked, and it is for a person to decide whether to
train again. What the gate did not find (subject.py). Copies outside the workspace. Imports of other machines
into a place that workspaces share (alone.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.events import EventLog, read_lines
from rsc.release.agent.agent import KeyAgent
from rsc.release.lifecycle.expire import Expired, expire_held
from rsc.release.lifecycle.import_lock import no_imports
from rsc.release.lifecycle.kek_index import Providers
from rsc.release.lifecycle.rewrite import REASON, ErasureContext, finish_carries, rewrite
from rsc.release.lifecycle.subject import Hit
from rsc.release.lifecycle.trace import DerivedRun, Trace, derived_runs, trace, with_ancestors
from rsc.release.record.log_record import replay
from rsc.release.record.run_origin import Version
from rsc.store.dataset import Dataset, DatasetRef, list_names, list_versions

MARK = "erasures.jsonl"
"""File in a run and in each of its exports: which data it was trained on lost records since."""


@dataclass(frozen=True, slots=True)
class Erased:
    removed: dict[str, int]
    """Records per data set, those of erasures that were stopped and finished now included."""
    written: tuple[DatasetRef, ...]
    expired: tuple[Expired, ...]
    marked: tuple[DerivedRun, ...]
    marked_unsearched: tuple[DerivedRun, ...]
    """Runs on versions that could not be searched: they may have read a record of the person."""
    left: Trace
    """What a second search still finds: no hits in what can be searched."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to end, as the log holds it from before the first key goes."""

    index: int
    """Of its record in the log."""
    removed: dict[str, int]
    versions: tuple[Version, ...]
    """Those that end."""
    touched: tuple[Version, ...]
    """Those whose runs are marked: also the ones that `versions` were written from."""
    unsearched: tuple[Version, ...] = ()
    """Those whose runs are marked as perhaps trained on records of the person."""


@dataclass(frozen=True, slots=True)
class _Done:
    marked: list[DerivedRun]
    marked_unsearched: list[DerivedRun]
    expired: list[Expired]


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

    Raises ConfigError while an import runs, and for one that was stopped and can go on: nobody can look
    through it. Nothing is erased then. Calling it again finishes what was stopped.
    """
    house = ErasureContext(workspace, agent, providers, audit, clock, user)
    with no_imports(workspace, list_names(workspace.bulk)):
        finish_carries(house)
        plans = _stopped(audit)
        stopped = _carry_out(house, plans)
        found = trace(workspace, subject, agent=agent, audit=audit, user=user)
        written = _rewrite_newest(house, found.hits, subject=subject)
        plans.append(_begin(house, found))
        done = _carry_out(house, plans[-1:])
        left = trace(workspace, subject, agent=agent, audit=audit, user=user)
    removed: Counter[str] = sum((Counter(plan.removed) for plan in plans), Counter())
    return Erased(
        dict(removed),
        written,
        (*stopped.expired, *done.expired),
        (*stopped.marked, *done.marked),
        (*stopped.marked_unsearched, *done.marked_unsearched),
        left,
    )


def _rewrite_newest(house: ErasureContext, hits: tuple[Hit, ...], *, subject: str) -> tuple[DatasetRef, ...]:
    """A version without the records for each data set whose newest one holds some."""
    by_version: dict[tuple[str, int], list[Hit]] = defaultdict(list)
    for hit in hits:
        by_version[hit.data, hit.version].append(hit)
    newest = [Dataset.open(house.workspace.bulk, name=name) for name in sorted({hit.data for hit in hits})]
    return tuple(
        rewrite(house, dataset, hits=by_version[dataset.name, dataset.version], subject=subject)
        for dataset in newest
        if (dataset.name, dataset.version) in by_version
    )


def _begin(house: ErasureContext, found: Trace) -> _Plan:
    """Write down what is about to end: without its keys it cannot be found again."""
    records = {
        (hit.data, hit.version, hit.split, hit.sample if hit.split else hit.record) for hit in found.hits
    }
    removed = dict(Counter(data for data, *_ in records))
    versions = sorted(found.touched)
    touched = sorted(with_ancestors(found.touched, recorded=replay(house.audit.entries())))
    unsearched = sorted({(run.data, run.version) for run in found.runs_on_closed})
    index = house.audit.append(
        "erasure_began",
        user=house.user,
        removed=removed,
        versions=versions,
        touched=touched,
        unsearched=unsearched,
    )
    return _Plan(index, removed, tuple(versions), tuple(touched), tuple(unsearched))


def _stopped(audit: AuditLog) -> list[_Plan]:
    """Erasures that began and did not end."""
    plans = {}
    for entry in audit.entries():
        if entry["kind"] == "erasure_began":
            versions = _versions(entry["versions"])
            touched = _versions(entry.get("touched", entry["versions"]))
            unsearched = _versions(entry.get("unsearched", ()))
            plans[entry["index"]] = _Plan(entry["index"], entry["removed"], versions, touched, unsearched)
        elif entry["kind"] == "subject_erased":
            plans.pop(entry.get("began"), None)
    return list(plans.values())


def _versions(pairs: Iterable[tuple[str, int]]) -> tuple[Version, ...]:
    return tuple((name, version) for name, version in pairs)


def _carry_out(house: ErasureContext, plans: list[_Plan]) -> _Done:
    done = _Done([], [], [])
    for plan in plans:
        recorded = replay(house.audit.entries())
        runs = list(derived_runs(house.workspace, set(plan.touched), recorded=recorded))
        perhaps = list(derived_runs(house.workspace, set(plan.unsearched), recorded=recorded))
        for run in runs:
            _mark(house, run, kind="data_erased")
        for run in perhaps:
            _mark(house, run, kind="data_not_searched")
        done.expired.extend(
            _expire(house, name, version)
            for name, version in plan.versions
            if version in list_versions(house.workspace.bulk, name)  # else somebody deleted the folder since
        )
        house.audit.append(
            "subject_erased",
            user=house.user,
            removed=plan.removed,
            runs=[run.run for run in runs],
            runs_unsearched=[run.run for run in perhaps],
            began=plan.index,
        )
        done.marked.extend(runs)
        done.marked_unsearched.extend(perhaps)
    return done


def _expire(house: ErasureContext, name: str, version: int) -> Expired:
    return expire_held(
        house.workspace,
        name,
        providers=house.providers,
        audit=house.audit,
        user=house.user,
        version=version,
        reason=REASON,
    )


def _mark(house: ErasureContext, run: DerivedRun, *, kind: str) -> None:
    """Write into the run and its exports that their data lost records, or may have held some of a person whom
    nobody could look for. A folder that is gone is not made again; the log names it."""
    folder = house.workspace.runs / run.run
    for place in (folder, *map(Path, run.exports)):
        if not place.is_dir() or kind in _implied(place / MARK, run):
            continue
        mark = EventLog(place / MARK, clock=house.clock)
        mark.append(kind, data=run.data, version=run.version)
        mark.close()
    house.audit.append(
        "model_marked",
        run=run.run,
        data=run.data,
        version=run.version,
        why=kind,
        exports=list(run.exports),
        exports_gone=list(run.exports_gone),
    )


def _implied(marks: Path, run: DerivedRun) -> set[str]:
    """What need not be written again: that records were erased says more than that nobody could look."""
    kinds = {
        mark["kind"]
        for mark in read_lines(marks)
        if (run.data, run.version) == (mark["data"], mark["version"])
    }
    return kinds | {"data_not_searched"} if "data_erased" in kinds else kinds

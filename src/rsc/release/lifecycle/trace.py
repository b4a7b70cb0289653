"""From a person to what is derived from their records: versions -> runs -> checkpoints and exports.

A run counts as derived when the log says that it was trained on a version that holds a record of the person,
or on one that such a version was written from by removals, or started from a run, or an export of one, that
was: training reads every record of its split, so finer tracking would change nothing.

What could not be searched is never said to hold nothing: versions whose keys are gone or refused are listed,
and so are the runs that were trained on them.

Not covered: copies of exports; which weights a record changed; runs that started from open weights whose
`rsc.json`, a plain file, does not name the run that they were exported from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.errors import GateRefused
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.subject import Hit, find_subject
from rsc.release.record.log_record import Recorded, replay
from rsc.release.record.run_origin import Version
from rsc.store.dataset import Dataset, list_names, list_versions
from rsc.store.staging import list_unfinished
from rsc.untrusted import UntrustedFolder

_STEP = re.compile("step-[0-9]+")


@dataclass(frozen=True, slots=True)
class DerivedRun:
    """A run that trained on a version with records of the person, or started from one that did."""

    run: str
    data: str
    version: int
    checkpoints: tuple[str, ...]
    exports: tuple[str, ...]
    """Folders of its exports, inside and outside the workspace, as the log says where they were written."""
    exports_gone: tuple[str, ...] = ()
    """Of `exports`, those that are not where they were written: moved, copied or removed."""


@dataclass(frozen=True, slots=True)
class Trace:
    hits: tuple[Hit, ...]
    runs: tuple[DerivedRun, ...]
    closed: tuple[str, ...]
    """Versions that could not be looked into, with the reason: their keys are gone or refused, or they are
    not finished."""
    runs_on_closed: tuple[DerivedRun, ...]
    """Runs that were trained on such a version and on none with a hit: nobody can say whether they read a
    record of the person."""
    runs_unrecorded: tuple[str, ...]
    """Runs of which the log does not say what they were trained on."""

    @property
    def touched(self) -> set[Version]:
        return {(hit.data, hit.version) for hit in self.hits}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace(workspace: Workspace, subject: str, *, agent: KeyAgent, audit: AuditLog, user: str) -> Trace:
    """Look into every version whose key is still there. Each look is a key release in the log; the log
    gets counts, never the subject."""
    hits: list[Hit] = []
    closed: list[str] = []
    unsearched: set[Version] = set()
    recorded = replay(audit.entries())
    for name in list_names(workspace.bulk):
        closed += [f"{begun.folder}: not finished" for begun in list_unfinished(workspace.bulk, name)]
        for number in list_versions(workspace.bulk, name):
            dataset = Dataset.open(workspace.bulk, name=name, version=number)
            try:
                with agent.release(KeyRequest("review", user, data=name, version=number)) as key:
                    hits += find_subject(dataset, key=key, subject=subject)
            except GateRefused as refusal:
                closed.append(f"{name} version {number}: {refusal.message}")
                unsearched.add((name, number))
    here = {
        (name, number)
        for name in list_names(workspace.bulk)
        for number in list_versions(workspace.bulk, name)
    }
    for name, number in sorted(recorded.versions.keys() - here):
        closed.append(f"{name} version {number}: it is not here any more")
        unsearched.add((name, number))
    touched = with_ancestors({(hit.data, hit.version) for hit in hits}, recorded=recorded)
    runs = tuple(derived_runs(workspace, touched, recorded=recorded))
    sure = {run.run for run in runs}
    perhaps = tuple(
        run for run in derived_runs(workspace, unsearched - touched, recorded=recorded) if run.run not in sure
    )
    found = Counter(f"{hit.data} {hit.version}" for hit in hits)
    unrecorded = tuple(
        path.parent.name
        for path in sorted(workspace.runs.glob("*/run.json"))
        if path.parent.name not in recorded.runs
    )
    audit.append(
        "subject_traced",
        user=user,
        found=found,
        runs=[run.run for run in runs],
        closed=len(closed),
        runs_on_closed=[run.run for run in perhaps],
        runs_unrecorded=list(unrecorded),
    )
    return Trace(tuple(hits), runs, tuple(closed), perhaps, unrecorded)


def with_ancestors(versions: set[Version], *, recorded: Recorded) -> set[Version]:
    """Also the versions that these were written from: they held the same records and more."""
    return versions.union(*(recorded.ancestors(version) for version in versions))


def derived_runs(workspace: Workspace, versions: set[Version], *, recorded: Recorded) -> Iterator[DerivedRun]:
    """Runs that the log says were trained on one of the versions, or started from one that was, and so on."""
    for run, origin in sorted(recorded.runs.items()):
        for data, version in sorted(versions.intersection(origin.traced_data())):
            folder = workspace.runs / run
            files = UntrustedFolder(folder)
            exports = _exports(folder, recorded=recorded)
            yield DerivedRun(
                run=run,
                data=data,
                version=version,
                checkpoints=tuple(name for name in files.folders("checkpoints") if _STEP.fullmatch(name)),
                exports=tuple(exports),
                exports_gone=tuple(place for place in exports if not Path(place).is_dir()),
            )


def _exports(folder: Path, *, recorded: Recorded) -> list[str]:
    """Where exports of a run were written, by the log; and folders in the run from before it said that."""
    logged = [place for run, place in recorded.exports if run == folder.name]
    known = {Path(place) for place in logged}
    names = UntrustedFolder(folder).folders()
    inside = (folder / name for name in sorted(names) if name.startswith("export"))
    unlogged = (path for path in inside if not any(path == each or path in each.parents for each in known))
    return [*map(str, unlogged), *logged]

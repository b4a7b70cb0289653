"""From a person to what is derived from their records: versions -> runs -> checkpoints and exports.

A run counts as derived when its lineage names a version that holds a record of the person, or the lineage
of the run that it started from, or started from an export of, does, and so on: training reads every record of
its split, so finer tracking would change nothing.

Not covered: what somebody copied out of the workspace; which weights a record changed; runs that started from
an export of a run that is not here, or whose `rsc.json`, a plain file, does not name it: their lineage holds
the digests of the weights alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.errors import GateRefused
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.lineage_facts import traced_data
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.subject import Hit, find_subject
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


@dataclass(frozen=True, slots=True)
class Trace:
    hits: tuple[Hit, ...]
    runs: tuple[DerivedRun, ...]
    closed: tuple[str, ...]
    """Versions that could not be looked into, with the reason: their keys are gone or refused, or they are
    not finished."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace(workspace: Workspace, subject: str, *, agent: KeyAgent, audit: AuditLog, user: str) -> Trace:
    """Look into every version whose key is still there. Each look is a key release in the log; the log
    gets counts, never the subject."""
    hits: list[Hit] = []
    closed = []
    for name in list_names(workspace.bulk):
        closed += [f"{begun.folder}: not finished" for begun in list_unfinished(workspace.bulk, name)]
        for number in list_versions(workspace.bulk, name):
            dataset = Dataset.open(workspace.bulk, name=name, version=number)
            try:
                with agent.release(KeyRequest("review", user, data=name, version=number)) as key:
                    hits += find_subject(dataset, key=key, subject=subject)
            except GateRefused as refusal:
                closed.append(f"{name} version {number}: {refusal.message}")
    touched = {(hit.data, hit.version) for hit in hits}
    runs = tuple(derived_runs(workspace, touched))
    found = Counter(f"{hit.data} {hit.version}" for hit in hits)
    audit.append("subject_traced", user=user, found=found, runs=[run.run for run in runs], closed=len(closed))
    return Trace(tuple(hits), runs, tuple(closed))


def derived_runs(workspace: Workspace, versions: set[tuple[str, int]]) -> Iterator[DerivedRun]:
    """Runs whose lineage names one of the versions, or that of what they started from, and so on."""
    for record_path in sorted(workspace.runs.glob("*/run.json")):
        files = UntrustedFolder(record_path.parent)
        lineage = json.loads(files.read("run.json")).get("lineage", {})
        for data, version in sorted(versions.intersection(traced_data(lineage))):
            folder = record_path.parent
            yield DerivedRun(
                run=folder.name,
                data=data,
                version=version,
                checkpoints=tuple(name for name in files.folders("checkpoints") if _STEP.fullmatch(name)),
                exports=tuple(str(folder / name) for name in files.folders() if name.startswith("export")),
            )

"""From a person to what is derived from their records: versions -> runs -> checkpoints and exports.

A run counts as derived when its lineage names a version that holds a record of the person: training reads
every record of its split, so finer tracking would change nothing.

Not covered: what somebody copied out of the workspace; which weights a record changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.errors import GateRefused
from rsc.release.agent import KeyAgent
from rsc.release.request import KeyRequest
from rsc.release.subject import Hit, find_subject
from rsc.store.dataset import Dataset, list_datasets


@dataclass(frozen=True, slots=True)
class DerivedRun:
    """A run that trained on a version with records of the person."""

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
    """Versions that could not be looked into, with the reason: their keys are gone or refused."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace(workspace: Workspace, subject: str, *, agent: KeyAgent, audit: AuditLog, user: str) -> Trace:
    """Look into every version whose key is still there. Each look is a key release in the log; the log
    gets counts, never the subject."""
    hits: list[Hit] = []
    closed = []
    for name, versions in list_datasets(workspace.bulk):
        for number in versions:
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
    """Runs whose lineage names one of the versions."""
    for record_path in sorted(workspace.runs.glob("*/run.json")):
        lineage = json.loads(record_path.read_bytes()).get("lineage", {})
        read = [lineage.get("data", {}), *(other["data"] for other in lineage.get("mixed", []))]
        sources = [(about.get("name"), about.get("version")) for about in read]
        for source in [source for source in sources if source in versions]:
            folder = record_path.parent
            yield DerivedRun(
                run=folder.name,
                data=str(source[0]),
                version=int(source[1]),
                checkpoints=tuple(path.name for path in sorted(folder.glob("checkpoints/step-*"))),
                exports=tuple(str(path) for path in sorted(folder.glob("export*")) if path.is_dir()),
            )

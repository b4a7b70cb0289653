"""What a run was trained on, as its lineage says, found in the workspace as it is now.

Not covered: a lineage that the run's own workers changed, which they can where they run without a sandbox
(runs/folder.py). While they run, the agent serves them by a list of its own (served.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError
from rsc.release.agent.decision import DataFacts
from rsc.release.agent.facts import data_facts
from rsc.release.agent.facts_cache import Memory
from rsc.review.approval.verdict import ReviewState
from rsc.review.policy import Policy
from rsc.store.dataset import Dataset

Version = tuple[str, int]
"""Name and number of a data set version."""


def own_data(lineage: Mapping[str, Any]) -> Iterator[Version]:
    """What the run itself read. Raises KeyError or TypeError for a lineage that is none."""
    for part in (lineage, *lineage.get("mixed", ())):
        if "data" in part:
            yield part["data"]["name"], part["data"]["version"]


def all_data(lineage: Mapping[str, Any]) -> Iterator[Version]:
    """Also what the run that it started from had read, and so on back."""
    yield from own_data(lineage)
    if "parent" in lineage:
        yield from all_data(lineage["parent"])


def traced_data(lineage: Mapping[str, Any]) -> Iterator[Version]:
    """Also what a run had read whose export it started from. Tracing goes by it and the key agent does not:
    an export was let out of the rules of its data, by a release of its own."""
    yield from own_data(lineage)
    for before in ("parent", "export_of"):
        if before in lineage:
            yield from traced_data(lineage[before])


def facts_of(version: Version, *, workspace: Workspace, memory: Memory, now: datetime) -> DataFacts:
    """Of a version that may have ended since; of one that is gone altogether, the strictest."""
    name, number = version
    try:
        return memory.find(name, version=number, now=now).facts
    except (ConfigError, IntegrityError):
        pass  # without a key; what its policy says may still be here
    try:
        dataset = Dataset.open(workspace.bulk, name=name, version=number)
    except ConfigError:
        gone = ReviewState("void", "it is not here any more", False, (), None)
        return DataFacts("a data set that is gone", 0, "", now, Policy(isolation="required"), gone)
    return data_facts(dataset, identities=workspace.identities, now=now)

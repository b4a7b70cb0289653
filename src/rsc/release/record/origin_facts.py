"""The rules of what a run was trained on, found in the workspace as it is now."""

from __future__ import annotations

from datetime import datetime

from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError
from rsc.release.agent.decision import DataFacts
from rsc.release.agent.facts import data_facts
from rsc.release.agent.facts_cache import FactsCache
from rsc.release.record.log_record import Recorded
from rsc.release.record.run_origin import Version
from rsc.review.approval.verdict import ReviewState
from rsc.review.policy import Policy
from rsc.store.dataset import Dataset


def facts_of(
    version: Version,
    *,
    root_hash: str,
    workspace: Workspace,
    memory: FactsCache,
    recorded: Recorded,
    now: datetime,
) -> DataFacts:
    """Of a version that may have ended since.

    The strictest facts stand for one that is gone altogether, or has another root than the run read.
    """
    name, number = version
    try:
        facts = memory.find(name, version=number, recorded=recorded, now=now).facts
    except (ConfigError, IntegrityError):
        try:
            dataset = Dataset.open(workspace.bulk, name=name, version=number)
            facts = data_facts(dataset, workspace=workspace, recorded=recorded, now=now)
        except ConfigError:
            return _gone(now)
    return facts if facts.root_hash == root_hash else _gone(now)


def _gone(now: datetime) -> DataFacts:
    state = ReviewState("void", "it is not here any more", False, (), None)
    strictest = Policy(isolation="required", cipher="fips")
    return DataFacts("a data set that is gone", 0, "", now, strictest, state, False)

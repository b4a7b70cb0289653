"""Gather what a decision needs from the workspace: the version, its policy, and where its review stands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rsc.audit.note import Verifier
from rsc.clock import parse_timestamp
from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError, ReviewVoid
from rsc.release.carry import CARRIED, Carry, read_carry
from rsc.release.decision import DataFacts
from rsc.review.approval import ReviewState, approval_from_json, review_facts, status
from rsc.review.identity import known_identities
from rsc.review.policy import Policy, parse_policy
from rsc.store.dataset import Dataset


def data_facts(dataset: Dataset, *, identities: Path, now: datetime) -> DataFacts:
    """Read and hash the review folder anew: a byte changed a second ago counts.

    Raises ReviewVoid when policy.toml is missing or is not the one that root.json binds.
    """
    content = dataset.read_review("policy.toml") or b""
    if hashlib.sha256(content).hexdigest() != dataset.policy_sha256:
        raise ReviewVoid(
            f"the policy file of {dataset.name} version {dataset.version} was changed after the import",
            hint="put the imported policy back; to change a policy, import again under the new one",
        )
    policy = parse_policy(content)
    return DataFacts(
        name=dataset.name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        created=collected(dataset),
        policy=policy,
        review=review_state(dataset, policy=policy, policy_bytes=content, identities=identities, now=now),
    )


def collected(dataset: Dataset) -> datetime:
    """When the data came in: a version rewritten to erase records keeps the date of the first."""
    told = dataset.facts.get("collected")
    return parse_timestamp(told) if told else dataset.created


def review_state(
    dataset: Dataset, *, policy: Policy, policy_bytes: bytes, identities: Path, now: datetime
) -> ReviewState:
    """Where the review of a version stands at `now`, from the bytes in its folder.

    A version that was rewritten to erase records also counts the approvals of what it came from (carry.py).
    """
    facts = review_facts(
        root_hash=dataset.root_hash,
        report=dataset.read_review("report.json") or b"",
        policy=policy_bytes,
        decisions=dataset.read_review("decisions.json") or b"",
        author=str(dataset.facts.get("author", "")),
    )
    names = [
        name for name in dataset.list_review() if name.startswith("approvals/") and name.endswith(".json")
    ]
    approvals = [approval_from_json(dataset.read_review(name) or b"") for name in names]
    known = known_identities(identities)
    own = status(facts, policy=policy, approvals=approvals, known=known, now=now)
    carry = _carry(dataset, identities=identities)
    if carry is None or own.state in ("approved", "rejected"):
        return own
    states = [
        status(replace(facts, root_hash=root), policy=policy, approvals=approvals, known=known, now=now)
        for root in carry.approved_root_hashes
    ]
    decided = next((state for state in states if state.state in ("approved", "rejected")), states[-1])
    return replace(decided, reason=f"{decided.reason}; {carry.told()}")


def _carry(dataset: Dataset, *, identities: Path) -> Carry | None:
    """The carry of a version, if it has one. Raises ReviewVoid when it is not by this workspace's log."""
    content = dataset.read_review(CARRIED)
    if content is None:
        return None
    log_key = Workspace(identities.parent).audit / "log.vkey"
    return read_carry(content, root_hash=dataset.root_hash, verifier=Verifier.from_text(log_key.read_text()))


def run_record(workspace: Workspace, run: str) -> dict[str, Any]:
    """`run.json` of a run. Raises ConfigError when there is no such run."""
    path = workspace.runs / run / "run.json"
    if Path(run).name != run:
        raise ConfigError(f"{run!r} is not the name of a run")
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"there is no run {run}", hint="see `rsc runs ls`") from None
    except ValueError:
        raise IntegrityError(f"run.json of {run} is not JSON", outcome="header") from None
    return record

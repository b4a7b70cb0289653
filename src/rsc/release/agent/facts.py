"""Gather what a decision needs from the workspace: the version, its policy, and where its review stands."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rsc.audit.note import Verifier
from rsc.clock import parse_timestamp
from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError, ReviewVoid
from rsc.release.agent.carried_review import CARRIED, read_carry
from rsc.release.agent.decision import DataFacts
from rsc.review.approval.identity import known_identities
from rsc.review.approval.verdict import Approval, ReviewState, approval_from_json, review_facts, status
from rsc.review.policy import parse_policy
from rsc.store.dataset import Dataset
from rsc.untrusted import UntrustedFolder


@dataclass(frozen=True, slots=True)
class ReviewFiles:
    """Every byte that a review's state depends on, besides the version itself and the time."""

    policy: bytes
    report: bytes
    decisions: bytes
    approvals: tuple[bytes, ...]
    carried: bytes | None
    log_key: str
    """Verifier key of the workspace's log, which signs carries (carry.py)."""
    known: tuple[tuple[str, str], ...]
    """(public key, name) of everybody who may sign."""

    @classmethod
    def read(cls, dataset: Dataset, *, identities: Path) -> ReviewFiles:
        approvals = dataset.store.children(f"{dataset.folder}/review/approvals")
        carried = dataset.read_review(CARRIED)
        log_key = Workspace(identities.parent).audit / "log.vkey"
        return cls(
            policy=dataset.read_review("policy.toml") or b"",
            report=dataset.read_review("report.json") or b"",
            decisions=dataset.read_review("decisions.json") or b"",
            approvals=tuple(
                dataset.read_review(f"approvals/{name}") or b""
                for name in approvals
                if name.endswith(".json")
            ),
            carried=carried,
            log_key=log_key.read_text() if carried else "",
            known=tuple(known_identities(identities).items()),
        )

    def counted(self) -> list[Approval]:
        """Verdicts whose signature fits a key that is known under the signer's name."""
        known = dict(self.known)
        return [a for a in _approvals(self) if a.is_signed() and known.get(a.public_key) == a.approver]

    def turns(self) -> tuple[datetime, ...]:
        """When approvals begin and end: what these bytes say changes at no other moment."""
        spans = [(parse_timestamp(a.created), parse_timestamp(a.expires)) for a in _approvals(self)]
        return tuple(moment for span in spans for moment in span)


def data_facts(dataset: Dataset, *, identities: Path, now: datetime) -> DataFacts:
    """Read the review folder anew: a byte changed a second ago counts.

    Raises ReviewVoid when policy.toml or report.json is missing or is not the one that root.json binds.
    """
    return conclude(dataset, ReviewFiles.read(dataset, identities=identities), now=now)


def collected(dataset: Dataset) -> datetime:
    """When the data came in: a version rewritten to erase records keeps the date of the first."""
    told = dataset.facts.get("collected")
    return parse_timestamp(told) if told else dataset.created


def conclude(dataset: Dataset, files: ReviewFiles, *, now: datetime) -> DataFacts:
    """What the files say at a moment. Raises ReviewVoid as `data_facts` does."""
    if hashlib.sha256(files.policy).hexdigest() != dataset.policy_sha256:
        raise ReviewVoid(
            f"the policy file of {dataset.name} version {dataset.version} was changed after the import",
            hint="put the imported policy back; to change a policy, import again under the new one",
        )
    if hashlib.sha256(files.report).hexdigest() != dataset.report_sha256:
        raise ReviewVoid(
            f"the report of {dataset.name} version {dataset.version} was changed after the import",
            hint="put the report of the import back from a copy, or import again",
        )
    return DataFacts(
        name=dataset.name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        created=collected(dataset),
        policy=parse_policy(files.policy),
        review=_review_state(dataset, files, now=now),
    )


def _review_state(dataset: Dataset, files: ReviewFiles, *, now: datetime) -> ReviewState:
    """A version that was rewritten to erase records also counts the approvals of what it came from."""
    own = _state_of_root(dataset.root_hash, dataset, files, now=now)
    if files.carried is None or own.state in ("approved", "rejected"):
        return own
    verifier = Verifier.from_text(files.log_key)
    carry = read_carry(files.carried, root_hash=dataset.root_hash, verifier=verifier)
    states = [_state_of_root(root, dataset, files, now=now) for root in carry.approved_root_hashes]
    decided = next((state for state in states if state.state in ("approved", "rejected")), states[-1])
    return replace(decided, reason=f"{decided.reason}; {carry.told()}")


def _state_of_root(root_hash: str, dataset: Dataset, files: ReviewFiles, *, now: datetime) -> ReviewState:
    facts = review_facts(
        root_hash=root_hash,
        report=files.report,
        policy=files.policy,
        decisions=files.decisions,
        author=str(dataset.facts.get("author", "")),
    )
    policy, approvals = parse_policy(files.policy), _approvals(files)
    return status(facts, policy=policy, approvals=approvals, known=dict(files.known), now=now)


def _approvals(files: ReviewFiles) -> list[Approval]:
    return [approval_from_json(content) for content in files.approvals]


def run_record(workspace: Workspace, run: str) -> dict[str, Any]:
    """`run.json` of a run. Raises ConfigError when there is no such run."""
    path = workspace.runs / run / "run.json"
    if Path(run).name != run:
        raise ConfigError(f"{run!r} is not the name of a run")
    try:
        record: dict[str, Any] = json.loads(UntrustedFolder(path.parent).read("run.json"))
    except FileNotFoundError:
        raise ConfigError(f"there is no run {run}", hint="see `rsc runs ls`") from None
    except ValueError:
        raise IntegrityError(f"run.json of {run} is not JSON", outcome="header") from None
    return record

"""Gather what a decision needs: the version, its policy, and where its review stands by files and log.

The log decides and files only carry what it cannot hold: an approval counts where its file is signed by an
enrolled key and the log says that it was given; a rejection counts from the log alone, so removing its file
changes nothing. Policy and report are bound by the root, and the root by the log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rsc.audit.note import Verifier
from rsc.clock import parse_timestamp
from rsc.config import Workspace
from rsc.errors import ReviewVoid
from rsc.release.agent.carried_review import CARRIED, read_carry
from rsc.release.agent.decision import DataFacts
from rsc.release.record.log_record import Recorded, RecordedValue
from rsc.review.approval.verdict import (
    Approval,
    ReviewState,
    approval_from_json,
    is_enrolled,
    rejected_by,
    review_facts,
    status,
)
from rsc.review.policy import parse_policy
from rsc.store.dataset import Dataset


@dataclass(frozen=True, slots=True)
class ReviewFiles:
    """Every byte that a review's state depends on, besides the version itself and the time."""

    policy: bytes
    report: bytes
    decisions: bytes
    approvals: tuple[bytes, ...]
    carried: bytes | None
    log_key: str
    """Verifier key of the workspace's log, which signs carries (carried_review.py)."""

    @classmethod
    def read(cls, dataset: Dataset, *, workspace: Workspace) -> ReviewFiles:
        approvals = dataset.store.children(f"{dataset.folder}/review/approvals")
        carried = dataset.read_review(CARRIED)
        log_key = workspace.audit / "log.vkey"
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
        )

    def counted(self, recorded: Recorded) -> list[Approval]:
        """Verdicts whose signature fits a key that its signer is enrolled under."""
        return [a for a in _approvals(self) if a.is_signed() and is_enrolled(a, reviewers=recorded.reviewers)]

    def turns(self) -> tuple[datetime, ...]:
        """When approvals begin and end: what these bytes say changes at no other moment."""
        spans = [(parse_timestamp(a.created), parse_timestamp(a.expires)) for a in _approvals(self)]
        return tuple(moment for span in spans for moment in span)


def data_facts(dataset: Dataset, *, workspace: Workspace, recorded: Recorded, now: datetime) -> DataFacts:
    """Read the review folder anew: a byte changed a second ago counts.

    Raises ReviewVoid when policy.toml or report.json is missing or is not the one that root.json binds.
    """
    files = ReviewFiles.read(dataset, workspace=workspace)
    return conclude(dataset, files, recorded=recorded, now=now)


def collected(dataset: Dataset) -> datetime:
    """When the data came in: a version rewritten to erase records keeps the date of the first."""
    told = dataset.facts.get("collected")
    return parse_timestamp(told) if told else dataset.created


def conclude(dataset: Dataset, files: ReviewFiles, *, recorded: Recorded, now: datetime) -> DataFacts:
    """What files and log say at a moment. Raises ReviewVoid as `data_facts` does."""
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
    place = (dataset.name, dataset.version)
    said = recorded.versions.get(place)
    root_hash = recorded.root_of(place, root_hash=dataset.root_hash)
    is_recorded = said is not None and said.value == root_hash
    ended_in = None
    if not is_recorded:
        review = _UNRECORDED
    elif root_hash != dataset.root_hash:
        review, ended_in = ReviewState("expired", "its key was destroyed", False), recorded.ended[place].index
    else:
        review = _review_state(dataset, files, recorded=recorded, now=now)
    return DataFacts(
        name=dataset.name,
        version=dataset.version,
        root_hash=root_hash,
        created=collected(dataset),
        policy=parse_policy(files.policy),
        review=review,
        is_recorded=is_recorded,
        ended_in=ended_in,
    )


_UNRECORDED = ReviewState(
    "void", "the log of this workspace says nothing of this version with this root", False
)


def _review_state(dataset: Dataset, files: ReviewFiles, *, recorded: Recorded, now: datetime) -> ReviewState:
    """A version that was rewritten to erase records also counts the approvals of what it came from."""
    verdicts = recorded.verdicts_on(dataset.root_hash)
    rejecting = [name for name, said in verdicts.items() if said.value == "reject"]
    if rejecting:
        return rejected_by(rejecting[0], policy=parse_policy(files.policy))
    own = _state_of_root(dataset.root_hash, dataset, files, recorded=recorded, now=now)
    if files.carried is None or own.state in ("approved", "rejected"):
        return own
    verifier = Verifier.from_text(files.log_key)
    carry = read_carry(files.carried, root_hash=dataset.root_hash, verifier=verifier)
    line = recorded.line(dataset.root_hash)
    if not set(carry.approved_root_hashes) <= set(line):
        raise ReviewVoid(
            f"carried.json of {dataset.name} version {dataset.version} names roots that the log does not",
            hint="review and approve this version afresh",
        )
    states = [
        _state_of_root(root, dataset, files, recorded=recorded, now=now)
        for root in carry.approved_root_hashes
    ]
    decided = next((state for state in states if state.state in ("approved", "rejected")), states[-1])
    return replace(decided, reason=f"{decided.reason}; {carry.told()}")


def _state_of_root(
    root_hash: str, dataset: Dataset, files: ReviewFiles, *, recorded: Recorded, now: datetime
) -> ReviewState:
    facts = review_facts(
        root_hash=root_hash,
        report=files.report,
        policy=files.policy,
        decisions=files.decisions,
        author=str(dataset.facts.get("author", "")),
    )
    logged = recorded.verdicts.get(root_hash, {})
    return status(
        facts,
        policy=parse_policy(files.policy),
        approvals=[a for a in _approvals(files) if _is_logged(a, logged=logged, root_hash=root_hash)],
        reviewers=recorded.reviewers,
        author_uid=recorded.importer(root_hash),
        now=now,
    )


def _is_logged(approval: Approval, *, logged: Mapping[str, RecordedValue], root_hash: str) -> bool:
    """Approvals of this root count where the log says that they were given.

    Those of other roots are passed on, for they say what changed, and so are rejections.
    """
    if approval.root_hash != root_hash or approval.verdict == "reject":
        return True
    said = logged.get(approval.approver)
    return said is not None and said.value == "approve"


def _approvals(files: ReviewFiles) -> list[Approval]:
    return [approval_from_json(content) for content in files.approvals]

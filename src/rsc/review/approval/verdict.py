"""Signed verdicts on a data set version, and what they add up to.

An approval binds the data (root hash), the scan report, the policy and the reviewers' decisions by
SHA-256. One changed byte in any of them makes it void. It is signed with Ed25519 over a fixed line and
canonical JSON, says when it expires, and names its signer by public key.

`status` is a pure function: facts, approvals, enrolled reviewers and a time in, a state out. It is evaluated
again at every release of a key.

Not covered: a reviewer who signs without looking; the clock of the machine that evaluates; who is behind an
account (enrolment.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rsc.clock import Clock, parse_timestamp, timestamp
from rsc.errors import GateRefused, ReviewMissing, ReviewRejected, ReviewVoid
from rsc.review.approval.enrolment import Enrolment
from rsc.review.approval.identity import Identity
from rsc.review.policy import Policy

State = Literal["in_review", "approved", "rejected", "void", "expired"]
Verdict = Literal["approve", "reject"]
_SIGNED_AS = b"rsc review approval v1\n"


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """What a reviewer looked at, as hashes in hexadecimal, and who brought the data in."""

    root_hash: str
    report_hash: str
    policy_hash: str
    decisions_hash: str
    author: str
    """Name or public key of the importer."""


def review_facts(
    *, root_hash: str, report: bytes, policy: bytes, decisions: bytes, author: str
) -> ReviewFacts:
    """Facts from the bytes as they lie in the review folder. No decisions file counts as an empty one."""
    report_hash, policy_hash, decisions_hash = (
        hashlib.sha256(part).hexdigest() for part in (report, policy, decisions)
    )
    return ReviewFacts(root_hash, report_hash, policy_hash, decisions_hash, author)


@dataclass(frozen=True, slots=True)
class Approval:
    """One signed verdict. `signature` covers every other field."""

    verdict: Verdict
    root_hash: str
    report_hash: str
    policy_hash: str
    decisions_hash: str
    author: str
    approver: str
    public_key: str
    note: str
    single_person: bool
    created: str
    expires: str
    signature: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"

    def signed_message(self) -> bytes:
        facts = asdict(self)
        del facts["signature"]
        return _SIGNED_AS + json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    def is_signed(self) -> bool:
        """Does the signature fit the public key that it names?"""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), self.signed_message())
        except (InvalidSignature, ValueError):
            return False
        return True

    def binds(self, facts: ReviewFacts) -> list[str]:
        """Names of the parts that changed since it was signed; empty if it still holds."""
        return [name for name in asdict(facts) if getattr(self, name) != getattr(facts, name)]


def approval_from_json(content: bytes) -> Approval:
    """Raises ReviewVoid when the file is not an approval."""
    try:
        return Approval(**json.loads(content))
    except (ValueError, TypeError):
        raise ReviewVoid("an approval file cannot be read", hint="remove it and approve again") from None


def approve(facts: ReviewFacts, *, policy: Policy, identity: Identity, note: str, clock: Clock) -> Approval:
    """Sign for the data. Raises GateRefused when the author would approve alone against the policy."""
    if identity_is_author(identity.name, identity.public_key, facts=facts) and not policy.single_person:
        raise GateRefused(
            f"{identity.name} imported this data and cannot approve it",
            hint="ask another reviewer; or import with a policy that says single_person = true",
        )
    return _sign("approve", facts, policy=policy, identity=identity, note=note, clock=clock)


def reject(facts: ReviewFacts, *, policy: Policy, identity: Identity, note: str, clock: Clock) -> Approval:
    """Sign against the data. Everybody may, the author too; one rejection is enough."""
    return _sign("reject", facts, policy=policy, identity=identity, note=note, clock=clock)


def _sign(
    verdict: Verdict, facts: ReviewFacts, *, policy: Policy, identity: Identity, note: str, clock: Clock
) -> Approval:
    now = clock.now()
    unsigned = Approval(
        verdict=verdict,
        **asdict(facts),
        approver=identity.name,
        public_key=identity.public_key,
        note=note,
        single_person=policy.single_person,
        created=timestamp(now),
        expires=timestamp(now + timedelta(seconds=policy.approval_valid_s)),
    )
    return replace(unsigned, signature=identity.sign(unsigned.signed_message()))


@dataclass(frozen=True, slots=True)
class ReviewState:
    """Where a version stands. `expires` is when the first needed approval runs out."""

    state: State
    reason: str
    single_person: bool
    approvers: tuple[str, ...] = ()
    expires: str | None = None

    def require(self, *, data: str) -> None:
        """Raise the fitting GateRefused unless approved."""
        if self.state == "approved":
            return
        kind = {"rejected": ReviewRejected, "void": ReviewVoid, "expired": ReviewVoid}.get(
            self.state, ReviewMissing
        )
        raise kind(
            f"{data} is {self.state.replace('_', ' ')}: {self.reason}",
            hint=f"look at it with `rsc data review {data}`",
            state=self.state,
        )


def status(
    facts: ReviewFacts,
    *,
    policy: Policy,
    approvals: Iterable[Approval],
    reviewers: Mapping[str, Enrolment],
    author_uid: int | None,
    now: datetime,
) -> ReviewState:
    """What the approvals of a version add up to at a moment.

    `reviewers` maps public keys to who is enrolled under them; any other signature counts for nothing.
    `author_uid` is the account that imported the data; None where only the author's name is known. A valid
    rejection beats approvals. Approvals of one account count once, unless the policy names it as shared.
    """
    signed = [a for a in approvals if a.is_signed()]
    enrolled = [a for a in signed if is_enrolled(a, reviewers=reviewers)]
    fitting = [a for a in enrolled if not a.binds(facts)]
    rejections = [a for a in fitting if a.verdict == "reject"]
    if rejections:
        return rejected_by(rejections[0].approver, policy=policy)
    counted = [
        (person_of(reviewers[a.public_key], policy=policy), a)
        for a in fitting
        if policy.single_person
        or not is_author(
            reviewers[a.public_key],
            facts=facts,
            policy=policy,
            reviewers=reviewers,
            author_uid=author_uid,
        )
    ]
    current = {
        person: a for person, a in counted if parse_timestamp(a.created) <= now < parse_timestamp(a.expires)
    }
    names = tuple(sorted(a.approver for a in current.values()))
    if len(current) >= policy.required_approvers:
        expiries = sorted((a.expires for a in current.values()), reverse=True)
        return ReviewState(
            "approved",
            "signed by " + ", ".join(names),
            policy.single_person,
            names,
            expiries[policy.required_approvers - 1],
        )
    if len({person for person, _ in counted}) >= policy.required_approvers:
        is_early = any(now < parse_timestamp(a.created) for _, a in counted)
        told = "its approvals begin later than now: is this machine's clock right?" if is_early else None
        return _state("expired", told or "its approvals have run out", policy)
    changed = sorted({part for a in enrolled if a.verdict == "approve" for part in a.binds(facts)})
    if changed and not fitting:
        return _state("void", f"{', '.join(changed)} changed after it was approved", policy)
    missing = policy.required_approvers - len(current)
    strangers = sorted({a.approver for a in signed if a not in enrolled})
    told = f"{missing} more approval{'s' if missing > 1 else ''} needed"
    if strangers:
        told += f" (nobody is enrolled under the key of {', '.join(strangers)})"
    elif len(fitting) > len(current):
        told += " (the author's does not count, and one account counts once)"
    return ReviewState("in_review", told, policy.single_person, names)


def is_enrolled(approval: Approval, *, reviewers: Mapping[str, Enrolment]) -> bool:
    """Whether its key is one that its signer is enrolled under."""
    enrolment = reviewers.get(approval.public_key)
    return enrolment is not None and enrolment.name == approval.approver


def person_of(reviewer: Enrolment, *, policy: Policy) -> str | int:
    """What counts as one person: the account; the name where the policy says that several people use it."""
    return reviewer.name if reviewer.account in policy.shared_accounts else reviewer.uid


def rejected_by(name: str, *, policy: Policy) -> ReviewState:
    return _state("rejected", f"{name} rejected it", policy)


def is_author(
    reviewer: Enrolment,
    *,
    facts: ReviewFacts,
    policy: Policy,
    reviewers: Mapping[str, Enrolment],
    author_uid: int | None,
) -> bool:
    """By name, by key, and by account: that of the import, or that of the author's enrolment."""
    if identity_is_author(reviewer.name, reviewer.public_key, facts=facts):
        return True
    if reviewer.account in policy.shared_accounts:
        return False
    named = {each.uid for each in reviewers.values() if facts.author in (each.name, each.public_key)}
    return reviewer.uid in named | {author_uid}


def _state(state: State, reason: str, policy: Policy) -> ReviewState:
    return ReviewState(state, reason, policy.single_person)


def identity_is_author(name: str, public_key: str, *, facts: ReviewFacts) -> bool:
    return facts.author in (name, public_key)

"""Signatures under a version: `rsc data approve reject`, also across accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

from rsc.accounts import Account
from rsc.api.record import Record, entry
from rsc.api.reviews import assess
from rsc.errors import ConfigError, GateRefused
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import (
    identities_folder,
    needs_passphrase,
    open_identity,
    read_handed_over,
    signing_reviewer,
)
from rsc.review.approval import verdict
from rsc.review.approval.enrolment import Enrolment
from rsc.review.approval.identity import Identity, is_protected, load_identity
from rsc.review.approval.packet import Packet, packet_from_json
from rsc.review.policy import Policy, parse_policy
from rsc.store.dataset import Dataset

Ask: TypeAlias = Callable[[str], bytes]
"""Gives the passphrase of a key, by what it is the passphrase of."""
First: TypeAlias = Callable[[Enrolment], None]
"""Hears of the owner of a fresh workspace, who is enrolled when they first sign."""


@dataclass(frozen=True)
class Signed(Record):
    """A verdict that was taken over, and where the review stands after it."""

    data: str
    version: int
    root_hash: str
    verdict: verdict.Verdict
    approver: str
    state: str
    reason: str
    approved_until: str | None
    single_person: bool


@dataclass(frozen=True)
class SignedPacket(Record):
    """A verdict for a workspace of another account, to be handed over as a file."""

    data: str
    version: int
    verdict: verdict.Verdict
    approver: str
    owner: str
    """The account that made the packet."""
    content: bytes


def _refuse_to_ask(what: str) -> bytes:
    raise ConfigError(f"the {what} is needed", hint="pass passphrase=..., a function that returns it")


class Signing(TypedDict, total=False):
    """How somebody signs: what `approve` and `reject` take beside the name of the data set."""

    note: str
    version: int | None
    """The newest where it is left out."""
    as_name: str | None
    """Which of the names that are enrolled for this account."""
    handed_over: Path | None
    """A verdict that a reviewer of another account signed."""
    passphrase: Ask
    first: First


@entry
def approve(name: str, **how: Unpack[Signing]) -> Signed:
    """Sign for a version: the data, the report and the policy as they are now, and nothing else.

    `how`: see `Signing`. Raises GateRefused where the signature would count for nothing.
    """
    return _give("approve", name, **how)


@entry
def reject(name: str, **how: Unpack[Signing]) -> Signed:
    """Sign against a version. One rejection is enough; keys are then released to nobody. `how`: see
    `Signing`."""
    return _give("reject", name, **how)


@entry
def sign_packet(
    kind: verdict.Verdict,
    name: str,
    *,
    packet: Path,
    note: str = "",
    as_name: str | None = None,
    passphrase: Ask = _refuse_to_ask,
) -> SignedPacket:
    """Sign in this account for a workspace of another. Raises ConfigError for a key without a passphrase."""
    house = Custody.open()
    content, owner = read_handed_over(packet)
    found = packet_from_json(content)
    if found.data != name:
        raise ConfigError(f"the packet is about {found.data}, not {name}")
    reviewer, folder = as_name or house.account.name, identities_folder(house)
    if not is_protected(folder, name=reviewer):
        raise ConfigError(f"the key of {reviewer} has no passphrase", hint="give it one: rsc review enroll")
    identity = load_identity(folder, name=reviewer, passphrase=passphrase(f"passphrase of {reviewer}"))
    decide = verdict.approve if kind == "approve" else verdict.reject
    policy = parse_policy(found.policy.encode(), name="the policy in the packet")
    signed = decide(found.facts(), policy=policy, identity=identity, note=note, clock=house.clock)
    return SignedPacket(found.data, found.version, kind, reviewer, owner.name, signed.to_json())


@entry
def packet_of(name: str, *, version: int | None = None, shown: dict[str, Any]) -> Packet:
    """What a reviewer of another account needs to sign; `shown` is what they see of the review."""
    dataset = Dataset.open(Custody.open().workspace.bulk, name=name, version=version)
    texts = {part: content.decode() for part, content in _parts(dataset).items()}
    author = str(dataset.facts.get("author", ""))
    return Packet(dataset.name, dataset.version, dataset.root_hash, author, **texts, shown=shown)


def signer(
    house: Custody, as_name: str | None, *, passphrase: Ask, first: First
) -> tuple[Enrolment, Identity]:
    """Who signs, and with what."""
    is_first = not house.recorded.reviewers
    reviewer = signing_reviewer(house, as_name)
    if is_first:
        first(reviewer)
    word = None
    if needs_passphrase(house, reviewer.name):
        word = passphrase(f"passphrase of {reviewer.name}")
    return reviewer, open_identity(house, reviewer, passphrase=word)


def _give(
    kind: verdict.Verdict,
    name: str,
    *,
    note: str = "",
    version: int | None = None,
    as_name: str | None = None,
    handed_over: Path | None = None,
    passphrase: Ask = _refuse_to_ask,
    first: First = lambda reviewer: None,
) -> Signed:
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    facts, policy = _facts(dataset), house.facts(dataset).policy
    if handed_over is not None:
        signed, reviewer = _handed_over(house, kind, name=name, facts=facts, file=handed_over)
    else:
        reviewer, identity = signer(house, as_name, passphrase=passphrase, first=first)
        if kind == "approve":
            _require_may_approve(house, reviewer, dataset=dataset, facts=facts, policy=policy)
        decide = verdict.approve if kind == "approve" else verdict.reject
        signed = decide(facts, policy=policy, identity=identity, note=note, clock=house.clock)
    dataset.write_review(f"approvals/{signed.public_key[:16]}.json", signed.to_json())
    house.audit.append(
        signed.verdict,
        data=name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        approver=reviewer.name,
        public_key=reviewer.public_key,
        note=signed.note,
        uid=reviewer.uid,
        by_uid=house.account.uid,
    )
    after = house.facts(dataset).review
    return Signed(
        data=name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        verdict=signed.verdict,
        approver=signed.approver,
        state=after.state,
        reason=after.reason,
        approved_until=after.expires,
        single_person=after.single_person,
    )


def _require_may_approve(
    house: Custody, reviewer: Enrolment, *, dataset: Dataset, facts: verdict.ReviewFacts, policy: Policy
) -> None:
    """Raises GateRefused where an approval by this account would count for nothing."""
    if not policy.single_person:
        _require_other_person(house, reviewer, dataset=dataset, facts=facts, policy=policy)
    if policy.tables.quasi_identifiers:
        with house.review_key(dataset) as key:
            assess(dataset, rules=policy.tables, key=key).require(data=dataset.name)


def _require_other_person(
    house: Custody, reviewer: Enrolment, *, dataset: Dataset, facts: verdict.ReviewFacts, policy: Policy
) -> None:
    """Raises GateRefused for the author's account, and for a key that anybody who reads its file can use."""
    recorded = house.recorded
    if verdict.is_author(
        reviewer,
        facts=facts,
        policy=policy,
        reviewers=recorded.reviewers,
        author_uid=recorded.importer(dataset.root_hash),
    ):
        raise GateRefused(
            f"{reviewer.name} (account {reviewer.account}) imported this data and cannot approve it",
            hint="another person reviews it from their own account (docs/review.md); or import with a "
            "policy that says single_person = true",
        )
    if not is_protected(identities_folder(house), name=reviewer.name):
        raise GateRefused(
            f"the key of {reviewer.name} has no passphrase, and this policy wants several people",
            hint="give it one: rsc review enroll",
        )


def _handed_over(
    house: Custody, kind: verdict.Verdict, *, name: str, facts: verdict.ReviewFacts, file: Path
) -> tuple[verdict.Approval, Enrolment]:
    """Raises GateRefused unless an enrolled reviewer signed it and their own account wrote the file."""
    content, owner = read_handed_over(file)
    signed = verdict.approval_from_json(content)
    reviewer = house.recorded.reviewers.get(signed.public_key)
    if not signed.is_signed() or reviewer is None or reviewer.name != signed.approver:
        raise GateRefused(
            f"{file} is not signed by an enrolled reviewer", hint="enrol them: rsc review enroll --from FILE"
        )
    _require_own_file(reviewer, file=file, owner=owner)
    changed = signed.binds(facts)
    if changed or signed.verdict != kind:
        what = f"another {', '.join(changed)}" if changed else f"a verdict to {signed.verdict}"
        raise GateRefused(f"{file} is about {what}", hint=f"hand out a new packet: rsc data review {name}")
    return signed, reviewer


def _require_own_file(reviewer: Enrolment, *, file: Path, owner: Account) -> None:
    if reviewer.uid != owner.uid:
        raise GateRefused(
            f"{reviewer.name} reviews from account {reviewer.uid} and {file} belongs to account {owner.uid}",
            hint="the reviewer hands over the file that their own account wrote, without a copy in between",
        )


def _facts(dataset: Dataset) -> verdict.ReviewFacts:
    author = str(dataset.facts.get("author", ""))
    parts: dict[str, Any] = _parts(dataset)
    return verdict.review_facts(root_hash=dataset.root_hash, author=author, **parts)


def _parts(dataset: Dataset) -> dict[str, bytes]:
    """What a signature binds beside the data."""
    files = (("report", "report.json"), ("policy", "policy.toml"), ("decisions", "decisions.json"))
    return {part: dataset.read_review(file) or b"" for part, file in files}

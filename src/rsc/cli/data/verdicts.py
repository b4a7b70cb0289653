"""`rsc data approve reject`: sign here, sign a packet for another account, or take over what one signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.data import review_text
from rsc.cli.data.access import As, Name, Note, PassphraseFile, Version, passphrase_from, signer
from rsc.cli.data.review import assess, train_command
from rsc.cli.output import next_commands, say, write_new
from rsc.errors import ConfigError, GateRefused
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import identities_folder, read_handed_over
from rsc.review.approval import verdict
from rsc.review.approval.enrolment import Enrolment
from rsc.review.approval.identity import is_protected, load_identity
from rsc.review.approval.packet import packet_from_json
from rsc.review.policy import Policy, parse_policy
from rsc.store.dataset import Dataset

From = Annotated[
    Path | None, typer.Option("--from", help="A verdict that a reviewer of another account signed.")
]
PacketFile = Annotated[
    Path | None, typer.Option("--packet", help="Sign what `rsc data review --write` of another account made.")
]
Write = Annotated[
    Path | None, typer.Option("--write", help="With --packet: the file for the signed verdict.")
]


@dataclass(frozen=True)
class _Order:
    """What the command line asks for."""

    kind: verdict.Verdict
    name: str
    version: int | None
    note: str
    as_name: str | None
    passphrase_file: Path | None


def approve(
    name: Name,
    note: Note = "",
    version: Version = None,
    as_name: As = None,
    from_file: From = None,
    packet: PacketFile = None,
    write: Write = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign for a version: the data, the report and the policy as they are now, and nothing else."""
    order = _Order("approve", name, version, note, as_name, passphrase_file)
    _give(order, from_file=from_file, packet=packet, write=write)


def reject(
    name: Name,
    note: Note = "",
    version: Version = None,
    as_name: As = None,
    from_file: From = None,
    packet: PacketFile = None,
    write: Write = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign against a version. One rejection is enough; keys are then released to nobody."""
    order = _Order("reject", name, version, note, as_name, passphrase_file)
    _give(order, from_file=from_file, packet=packet, write=write)


def _give(order: _Order, *, from_file: Path | None, packet: Path | None, write: Path | None) -> None:
    if (packet is None) != (write is None) or (from_file is not None and packet is not None):
        raise ConfigError(
            "--packet and --write go together, and without --from",
            hint=f"rsc data {order.kind} {order.name} --packet FILE --write SIGNED",
        )
    house = Custody.open()
    if packet is not None and write is not None:
        _sign_packet(house, order, packet=packet, target=write)
        return
    dataset = Dataset.open(house.workspace.bulk, name=order.name, version=order.version)
    facts, policy = _facts(dataset), house.facts(dataset).policy
    if from_file is not None:
        signed, reviewer = _handed_over(house, order, facts=facts, file=from_file)
    else:
        signed, reviewer = _signed(house, order, dataset=dataset, facts=facts, policy=policy)
    dataset.write_review(f"approvals/{signed.public_key[:16]}.json", signed.to_json())
    house.audit.append(
        signed.verdict,
        data=order.name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        approver=reviewer.name,
        public_key=reviewer.public_key,
        note=signed.note,
        uid=reviewer.uid,
        by_uid=house.account.uid,
    )
    after = house.facts(dataset)
    say(review_text.verdict_text(signed, dataset=dataset, state=after.review))
    if after.review.state == "approved":
        next_commands(train_command(dataset), f"rsc data show {order.name}")
    else:
        next_commands(f"rsc data show {order.name}", "rsc data ls")


def _signed(
    house: Custody, order: _Order, *, dataset: Dataset, facts: verdict.ReviewFacts, policy: Policy
) -> tuple[verdict.Approval, Enrolment]:
    """By this account. Raises GateRefused where its approval would count for nothing."""
    reviewer, identity = signer(house, order.as_name, passphrase_file=order.passphrase_file)
    if order.kind == "reject":
        signed = verdict.reject(facts, policy=policy, identity=identity, note=order.note, clock=house.clock)
        return signed, reviewer
    if not policy.single_person:
        _require_other_person(house, reviewer, dataset=dataset, facts=facts, policy=policy)
    if policy.tables.quasi_identifiers:
        with house.review_key(dataset) as key:
            assess(dataset, rules=policy.tables, key=key).require(data=order.name)
    signed = verdict.approve(facts, policy=policy, identity=identity, note=order.note, clock=house.clock)
    return signed, reviewer


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


def _sign_packet(house: Custody, order: _Order, *, packet: Path, target: Path) -> None:
    """Sign in this account for a workspace of another. Raises ConfigError for a key without a passphrase."""
    content, owner = read_handed_over(packet)
    found = packet_from_json(content)
    if found.data != order.name:
        raise ConfigError(f"the packet is about {found.data}, not {order.name}")
    name, folder = order.as_name or house.account.name, identities_folder(house)
    if not is_protected(folder, name=name):
        raise ConfigError(f"the key of {name} has no passphrase", hint="give it one: rsc review enroll")
    passphrase = passphrase_from(order.passphrase_file, what=f"passphrase of {name}")
    identity = load_identity(folder, name=name, passphrase=passphrase)
    decide = verdict.approve if order.kind == "approve" else verdict.reject
    policy = parse_policy(found.policy.encode(), name="the policy in the packet")
    signed = decide(found.facts(), policy=policy, identity=identity, note=order.note, clock=house.clock)
    write_new(target, signed.to_json(), mode=0o644)
    say(f"signed as {name}: {signed.verdict} of {found.data} version {found.version}, in {target}")
    next_commands(f"rsc data {order.kind} {found.data} --from {target.absolute()}   # by {owner.name}")


def _handed_over(
    house: Custody, order: _Order, *, facts: verdict.ReviewFacts, file: Path
) -> tuple[verdict.Approval, Enrolment]:
    """Raises GateRefused unless an enrolled reviewer signed it and their own account wrote the file."""
    content, owner = read_handed_over(file)
    signed = verdict.approval_from_json(content)
    reviewer = house.recorded.reviewers.get(signed.public_key)
    if not signed.is_signed() or reviewer is None or reviewer.name != signed.approver:
        raise GateRefused(
            f"{file} is not signed by an enrolled reviewer", hint="enrol them: rsc review enroll --from FILE"
        )
    if reviewer.uid != owner.uid:
        raise GateRefused(
            f"{reviewer.name} reviews from account {reviewer.uid} and {file} belongs to account {owner.uid}",
            hint="the reviewer hands over the file that their own account wrote, without a copy in between",
        )
    changed = signed.binds(facts)
    if changed or signed.verdict != order.kind:
        what = f"another {', '.join(changed)}" if changed else f"a verdict to {signed.verdict}"
        raise GateRefused(
            f"{file} is about {what}", hint=f"hand out a new packet: rsc data review {order.name}"
        )
    return signed, reviewer


def _facts(dataset: Dataset) -> verdict.ReviewFacts:
    parts: dict[str, Any] = {
        part: dataset.read_review(file) or b""
        for part, file in (
            ("report", "report.json"),
            ("policy", "policy.toml"),
            ("decisions", "decisions.json"),
        )
    }
    author = str(dataset.facts.get("author", ""))
    return verdict.review_facts(root_hash=dataset.root_hash, author=author, **parts)

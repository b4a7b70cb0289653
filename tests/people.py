"""Reviewers for tests: people with accounts of their own, enrolled as the log records it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rsc.accounts import Account, this_account
from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.release.record.log_record import replay
from rsc.review.approval.enrolment import Protection, enrolment_of
from rsc.review.approval.identity import Identity, create_identity, load_identity

UIDS = {"ada": 0, "ben": 70001, "cy": 70002, "eve": 70003, "mallory": 70004}
"""Accounts of the people in tests; `ada` is the owner, whoever runs them."""


def account_of_person(name: str) -> Account:
    uid = UIDS.get(name, 71000 + sum(name.encode()))
    return Account(uid or this_account().uid, name)


def person(
    workspace: Workspace, name: str, *, account: Account | None = None, clock: object = None
) -> Identity:
    """Somebody who may sign: their key, made and enrolled at first use. The owner `ada` comes first."""
    log = AuditLog.open(workspace.audit, clock=clock or SystemClock())  # type: ignore[arg-type]
    reviewers = replay(log.entries()).reviewers
    if not reviewers and name != "ada":
        person(workspace, "ada", clock=clock)
        reviewers = replay(log.entries()).reviewers
    folder: Path = workspace.identities
    has_key = (folder / f"{name}.key").exists()
    identity = load_identity(folder, name=name) if has_key else create_identity(folder, name=name)
    if identity.public_key not in reviewers:
        root = identity
        if reviewers:
            first = next(iter(reviewers.values()))
            root = load_identity(folder, name=first.name)
        enrol(log, identity, account=account or account_of_person(name), by=root)
    return identity


def enrol(
    log: AuditLog,
    identity: Identity,
    *,
    account: Account,
    by: Identity,
    protection: Protection = "passphrase",
) -> None:
    asked = enrolment_of(identity, account=account, protection=protection)
    log.append("reviewer_enrolled", **asdict(asked.countersigned(by)))

"""Who signs in a workspace: the owner at first use, others once a reviewer has countersigned.

    rsc review enroll                      the owner's own key gets a passphrase; or another key of theirs
    rsc review enroll --write FILE         another account makes its key and asks to be enrolled
    rsc review enroll --from FILE          somebody who is enrolled countersigns what that account handed over
    rsc data approve NAME --from FILE      a verdict that another account signed and handed over

What comes as a file counts for the account that owns the file, which only the administrator can change; so it
must be a plain file that nobody else can write.

Not covered: reviewers without an account on this machine.
"""

from __future__ import annotations

import os
import stat
from dataclasses import asdict
from pathlib import Path

from rsc.accounts import Account, account_of, home_of
from rsc.errors import ConfigError, GateRefused
from rsc.release.agent.custody import Custody
from rsc.review.approval.enrolment import Enrolment, Protection, enrolment_of
from rsc.review.approval.identity import (
    Identity,
    create_identity,
    is_protected,
    load_identity,
    protect_identity,
)

_MAX_BYTES = 1 << 20  # of a file that is handed over; an approval has a few hundred


def identities_folder(custody: Custody) -> Path:
    """Where this account's signing keys lie: in its own workspace, else below its home folder."""
    if custody.workspace.root.stat().st_uid == custody.account.uid:
        return custody.workspace.identities
    home = home_of(custody.account)
    if home is None:
        raise ConfigError(
            f"account {custody.account.uid} has no home folder for its signing key",
            hint="set RSC_HOME to a folder of your own",
        )
    return home / ".rsc" / "identities"


def acting_name(custody: Custody, as_name: str | None) -> str:
    """Who asks, for the log: this account, or one of the names that are enrolled for it."""
    return custody.account.name if as_name is None else _enrolled(custody, as_name).name


def author_name(custody: Custody, as_name: str | None) -> str:
    """Who brings data in. The owner of a fresh workspace is enrolled now."""
    if as_name is None and _is_fresh(custody):
        return enrol(custody, passphrase=None).name
    return acting_name(custody, as_name)


def signing_reviewer(custody: Custody, as_name: str | None) -> Enrolment:
    """Under which enrolment this account signs. The owner of a fresh workspace is enrolled now.

    Raises ConfigError where it is not enrolled, or `as_name` is not enrolled for it.
    """
    if as_name is not None:
        return _enrolled(custody, as_name)
    if _is_fresh(custody):
        return enrol(custody, passphrase=None)
    mine = _mine(custody)
    if not mine:
        raise ConfigError(
            f"account {_told(custody.account)} is not enrolled as a reviewer here",
            hint="hand a request to somebody who is: rsc review enroll --write FILE",
        )
    named = [each for each in mine if each.name == custody.account.name]
    if len(mine) > 1 and not named:
        raise ConfigError(
            f"account {_told(custody.account)} has {len(mine)} names: "
            f"{', '.join(each.name for each in mine)}",
            hint="choose one with --as",
        )
    return (named or mine)[0]


def open_identity(custody: Custody, reviewer: Enrolment, *, passphrase: bytes | None) -> Identity:
    """The signing key. Raises ConfigError where it is not the enrolled one."""
    identity = load_identity(identities_folder(custody), name=reviewer.name, passphrase=passphrase)
    if identity.public_key != reviewer.public_key:
        raise ConfigError(
            f"the key of {reviewer.name} here is not the enrolled one",
            hint="restore it from a copy, or enrol this one: rsc review enroll",
        )
    return identity


def needs_passphrase(custody: Custody, name: str) -> bool:
    return is_protected(identities_folder(custody), name=name)


def enrol(custody: Custody, *, passphrase: bytes | None, name: str | None = None) -> Enrolment:
    """Enrol a key of this account, made now where it has none of that name. The first is the owner's.

    With a passphrase, a key that has none gets it. Raises ConfigError where this account may not.
    """
    name = name or custody.account.name
    recorded = custody.recorded
    if recorded.reviewers and not _mine(custody):
        raise ConfigError(
            f"account {_told(custody.account)} is not enrolled here and cannot enrol itself",
            hint="hand a request to somebody who is: rsc review enroll --write FILE",
        )
    if not recorded.reviewers and custody.workspace.root.stat().st_uid != custody.account.uid:
        raise ConfigError("the first reviewer of a workspace is its owner", hint="ask them to run this")
    _require_free(custody, name=name, uid=custody.account.uid)
    identity = own_identity(custody, name=name, passphrase=passphrase)
    protection: Protection = "passphrase" if needs_passphrase(custody, name) else "none"
    asked = enrolment_of(identity, account=custody.account, protection=protection)
    return _log(custody, asked.countersigned(_endorser(custody, identity, passphrase=passphrase)))


def own_identity(custody: Custody, *, name: str, passphrase: bytes | None) -> Identity:
    """The key of that name, made where there is none; one without a passphrase gets the given one."""
    folder = identities_folder(custody)
    if not (folder / f"{name}.key").exists():
        return create_identity(folder, name=name, passphrase=passphrase)
    if passphrase is not None and not is_protected(folder, name=name):
        protect_identity(folder, name=name, passphrase=passphrase)
    return load_identity(folder, name=name, passphrase=passphrase)


def admit(custody: Custody, asked: Enrolment, *, owner: Account, endorser: Identity) -> Enrolment:
    """Countersign what another account handed over. Raises GateRefused where the file is not theirs."""
    if not asked.is_signed():
        raise GateRefused(f"the request of {asked.name} is not signed by its own key")
    if asked.uid != owner.uid:
        raise GateRefused(
            f"the request says account {asked.uid} and its file belongs to {_told(owner)}",
            hint="the reviewer hands over the file that their own account wrote, without a copy in between",
        )
    _require_free(custody, name=asked.name, uid=asked.uid)
    return _log(custody, asked.countersigned(endorser))


def read_handed_over(path: Path) -> tuple[bytes, Account]:
    """A file that another account hands over, and that account. Raises ConfigError for links, pipes, files
    that somebody else could have written, and those above 1 MiB."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is not a plain file of at most {_MAX_BYTES} bytes")
        if found.st_mode & 0o022 or found.st_nlink != 1:
            raise ConfigError(
                f"others than its owner can write {path}, or it has a second name",
                hint=f"its owner runs: chmod go-w {path}",
            )
        return os.pread(fd, _MAX_BYTES, 0), account_of(found.st_uid)
    finally:
        os.close(fd)


def _endorser(custody: Custody, identity: Identity, *, passphrase: bytes | None) -> Identity:
    """Who countersigns a key of this account: the key itself where it is the first or enrolled, else one that
    is enrolled for the account."""
    mine = _mine(custody)
    if not mine or any(each.public_key == identity.public_key for each in mine):
        return identity
    return open_identity(
        custody, mine[0], passphrase=passphrase if needs_passphrase(custody, mine[0].name) else None
    )


def _log(custody: Custody, enrolment: Enrolment) -> Enrolment:
    if not enrolment.counts_after(custody.recorded.reviewers):
        raise GateRefused(f"{enrolment.name} cannot be enrolled: nobody who is enrolled countersigned it")
    about = {**asdict(enrolment), "user": custody.account.name, "by_uid": custody.account.uid}
    custody.audit.append("reviewer_enrolled", **about)
    return enrolment


def _require_free(custody: Custody, *, name: str, uid: int) -> None:
    """Raises ConfigError for a name that somebody of another account has."""
    holder = custody.recorded.reviewer(name)
    if holder is not None and holder.uid != uid:
        raise ConfigError(
            f"{name} is the name of a reviewer with another account ({holder.account})",
            hint="choose another with --name",
        )


def _is_fresh(custody: Custody) -> bool:
    """Nobody is enrolled yet, and this is the owner."""
    is_owner = custody.workspace.root.stat().st_uid == custody.account.uid
    return is_owner and not custody.recorded.reviewers


def _mine(custody: Custody) -> list[Enrolment]:
    return [each for each in custody.recorded.reviewers.values() if each.uid == custody.account.uid]


def _enrolled(custody: Custody, name: str) -> Enrolment:
    mine = _mine(custody)
    found = next((each for each in mine if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in mine) or "none"
        raise ConfigError(
            f"{name!r} is not a reviewer enrolled for account {_told(custody.account)} (enrolled: {known})",
            hint=f"`rsc review enroll --name {name}` enrols one of your own; another person reviews from "
            "their own account (docs/review.md)",
        )
    return found


def _told(account: Account) -> str:
    return f"{account.name} ({account.uid})"

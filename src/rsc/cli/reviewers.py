"""`rsc review enroll reviewers`: who may sign here, and how others come to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rsc.cli.data.access import As, PassphraseFile, passphrase_from, signer
from rsc.cli.output import JsonFlag, emit, next_commands, say, table, write_new
from rsc.errors import ConfigError
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import admit, enrol, own_identity, read_handed_over
from rsc.review.approval.enrolment import Enrolment, enrolment_from, enrolment_of


def enroll(
    name: Annotated[
        str | None, typer.Option(help="Your name as a reviewer; that of your account if left out.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="A file to hand to somebody who is enrolled.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="What a reviewer of another account handed over.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Enrol yourself as a reviewer, ask to be enrolled, or countersign for another account."""
    if from_file is not None and (write is not None or name is not None):
        raise ConfigError("--from goes without --write and --name")
    house = Custody.open()
    if from_file is not None:
        enrolled = _countersign(house, from_file, as_name=as_name, passphrase_file=passphrase_file)
        emit(asdict(enrolled), as_json=as_json, text="")
        next_commands("rsc review reviewers")
        return
    name = name or house.account.name
    passphrase = passphrase_from(passphrase_file, what=f"passphrase for the key of {name}", is_new=True)
    if write is None:
        enrolled = enrol(house, passphrase=passphrase, name=name)
        emit(asdict(enrolled), as_json=as_json, text="")
        say(f"enrolled {enrolled.name} for account {enrolled.account} ({enrolled.uid}), with a passphrase")
        next_commands("rsc review reviewers")
        return
    identity = own_identity(house, name=name, passphrase=passphrase)
    asked = enrolment_of(identity, account=house.account, protection="passphrase")
    write_new(write, asked.to_json(), mode=0o644)
    emit({**asdict(asked), "path": str(write)}, as_json=as_json, text="")
    say(f"wrote {write}: {name} asks to be enrolled with the key {identity.public_key[:16]}...")
    next_commands(
        ("rsc", "review", "enroll", "--from", write.absolute()), note="by a reviewer of the workspace"
    )


def reviewers(as_json: JsonFlag = False) -> None:
    """List who may review in this workspace; one account is one person."""
    enrolled = list(Custody.open().recorded.reviewers.values())
    rows = [(each.name, each.account, each.uid, each.protection, each.public_key[:16]) for each in enrolled]
    text = table(rows, header=("reviewer", "account", "uid", "key under", "public key"))
    emit({"reviewers": [asdict(each) for each in enrolled]}, as_json=as_json, text=text)


def _countersign(
    house: Custody, file: Path, *, as_name: str | None, passphrase_file: Path | None
) -> Enrolment:
    content, owner = read_handed_over(file)
    try:
        asked = enrolment_from(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(
            f"{file} is not an enrolment", hint="make one with `rsc review enroll --write FILE`"
        ) from None
    endorser, identity = signer(house, as_name, passphrase_file=passphrase_file)
    enrolled = admit(house, asked, owner=owner, endorser=identity)
    say(
        f"enrolled {enrolled.name} for account {enrolled.account} ({enrolled.uid}), countersigned by "
        f"{endorser.name}"
    )
    return enrolled

"""`rsc data expire erase trace`: the end of data, of one person's or of all of it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rsc.cli.data import end_text
from rsc.cli.data.access import As, Name, Subject
from rsc.cli.output import JsonFlag, emit, next_commands
from rsc.errors import ConfigError
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle.erase import erase
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.trace import trace
from rsc.release.record.reviewers import acting_name


def trace_(subject: Subject, as_name: As = None, as_json: JsonFlag = False) -> None:
    """Where a person is: records, data sets, runs, checkpoints and exports. The log gets counts only."""
    house = Custody.open()
    found = trace(
        house.workspace,
        _subject(subject),
        agent=house.agent,
        audit=house.audit,
        user=acting_name(house, as_name),
    )
    record = found.to_json()
    emit(record, as_json=as_json, text=end_text.trace_text(record))
    if found.hits:
        next_commands("rsc data erase --subject ...")


def erase_(subject: Subject, as_name: As = None, as_json: JsonFlag = False) -> None:
    """Remove a person's records: new versions without them, old keys destroyed, derived models marked."""
    house = Custody.open()
    erased = erase(
        house.workspace,
        _subject(subject),
        agent=house.agent,
        providers=house.providers,
        audit=house.audit,
        clock=house.clock,
        user=acting_name(house, as_name),
    )
    record = erased.to_json()
    emit(record, as_json=as_json, text=end_text.erased_text(record))
    next_commands("rsc data ls", "rsc audit show", "rsc verify")


def expire_(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only this version; else all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Destroy the keys of a data set, then its bytes, then prove by trying that nothing opens any more."""
    house = Custody.open()
    ended = expire(
        house.workspace,
        name,
        providers=house.providers,
        audit=house.audit,
        user=house.account.name,
        version=version,
    )
    record = end_text.expired_record(ended)
    emit(record, as_json=as_json, text=end_text.expired_text(record))
    next_commands("rsc data ls", f"rsc audit show --data {name}", "rsc verify")


def _subject(text: str) -> str:
    """The person's address, number or handle; `-` reads it from stdin, where no process list shows it."""
    subject = sys.stdin.readline().strip() if text == "-" else text.strip()
    if not subject:
        raise ConfigError("--subject is empty", hint="an e-mail address, a number, a handle; or - for stdin")
    return subject

"""`rsc data expire erase trace`: the end of data, of one person's or of all of it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rsc.api import endings
from rsc.cli.data import end_text
from rsc.cli.data.access import As, Name, Subject
from rsc.cli.output import JsonFlag, Yes, confirm, emit, next_commands
from rsc.errors import ConfigError


def trace_(subject: Subject, as_name: As = None, as_json: JsonFlag = False) -> None:
    """Where a person is: records, data sets, runs, checkpoints and exports. The log gets counts only."""
    found = endings.trace(_subject(subject), as_name=as_name)
    record = found.to_json()
    emit(record, as_json=as_json, text=end_text.trace_text(record))
    if found.hits:
        next_commands("rsc data erase --subject ...")


def erase_(subject: Subject, as_name: As = None, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Remove a person's records: new versions without them, old keys destroyed, derived models marked."""
    person = _subject(subject)
    if subject != "-":
        confirm("destroy the keys of every version that holds records of this person", yes=yes)
    record = endings.erase(person, as_name=as_name, though_runs_train=yes).to_json()
    emit(record, as_json=as_json, text=end_text.erased_text(record))
    next_commands("rsc data ls", "rsc audit show", "rsc verify")


def expire_(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only this version; else all.")] = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Destroy the keys of a data set, then its bytes, then prove by trying that nothing opens any more."""
    which = "all versions" if version is None else f"version {version}"
    endings.require_data(name, version=version)
    confirm(f"destroy the keys and bytes of {name}, {which}, for ever", yes=yes)
    record = endings.expire(name, version=version, though_runs_train=yes).to_json()
    emit(record, as_json=as_json, text=end_text.expired_text(record))
    next_commands("rsc data ls", f"rsc audit show --data {name}", "rsc verify")


def _subject(text: str) -> str:
    """The person's address, number or handle; `-` reads it from stdin, where no process list shows it."""
    subject = sys.stdin.readline().strip() if text == "-" else text.strip()
    if not subject:
        raise ConfigError("--subject is empty", hint="an e-mail address, a number, a handle; or - for stdin")
    return subject

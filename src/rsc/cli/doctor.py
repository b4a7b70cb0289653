"""`rsc doctor`: what this machine has, one line each, worst first."""

from __future__ import annotations

import dataclasses

import typer

from rsc.cli.output import JsonFlag, emit, table
from rsc.cluster.health.doctor import checks
from rsc.config import Workspace
from rsc.errors import ResourceError


def doctor(as_json: JsonFlag = False) -> None:
    """Look at this machine. Exit code 4 when something stops the main job."""
    found = checks(Workspace.from_environment().root)
    rows = [
        (
            check.state,
            check.name,
            check.found + (f" -> {check.hint}" if check.state != "ok" and check.hint else ""),
        )
        for check in found
    ]
    result = {"checks": [dataclasses.asdict(check) for check in found]}
    emit(result, as_json=as_json, text=table(rows, header=("state", "what", "found")))
    if any(check.state == "bad" for check in found):
        raise typer.Exit(ResourceError.exit_code)

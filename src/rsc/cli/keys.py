"""`rsc keys ...`: which keys there are, rotation, and the sweeper of retention."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.clock import timestamp
from rsc.config import Workspace
from rsc.keys.envelope import KekInfo
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle.retention import overdue, sweep
from rsc.release.lifecycle.rotate import rotate
from rsc.release.lifecycle.run_keys import overdue_run_keys, sweep_run_keys
from rsc.release.lifecycle.unused_keys import overdue_unused, sweep_unused
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.staging import abandoned

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, rotate and destroy keys.")


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """Every key-encryption key ever made, what it opens, and how many are older than policy."""
    house = Custody.open()
    workspace, now, providers = house.workspace, house.clock.now(), house.providers
    opens = _versions_by_key(workspace)
    records = [
        _record(info, provider=name, opens=opens[(name, info.kek_id)])
        for name, provider in providers.items()
        for info in provider.list()
    ]
    late = [
        *overdue(workspace, providers=providers, now=now),
        *overdue_unused(workspace, providers=providers, now=now),
        *overdue_run_keys(workspace, providers=providers, now=now),
    ]
    rows = [
        (r["kek_id"], r["provider"], r["state"], r["created"][:10], ", ".join(r["opens"]) or "-")
        for r in records
    ]
    text = table(rows, header=("key", "provider", "state", "created", "opens"))
    result = {"keys": records, "older_than_policy": len(late)}
    emit(result, as_json=as_json, text=f"{text}\nkeys older than policy: {len(late)}")
    if late:
        next_commands("rsc keys sweep")


@app.command("rotate")
def rotate_keys(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    to: Annotated[str | None, typer.Option(help="Move the keys to this provider.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Wrap the data keys of a data set under a new key and destroy the old one. Data stays as it is."""
    house = Custody.open()
    done = rotate(
        house.workspace,
        name,
        providers=house.providers,
        audit=house.audit,
        user=house.account.name,
        to=to,
    )
    emit(done.to_json(), as_json=as_json, text="")
    say(
        f"{name}: {len(done.versions)} versions now under {', '.join(done.new)}; "
        f"destroyed {', '.join(done.old)}"
    )
    next_commands("rsc keys ls", f"rsc audit show --data {name}")


@app.command("sweep")
def sweep_keys(as_json: JsonFlag = False) -> None:
    """End what is past its retention, versions and checkpoints: key, then bytes, then the proof. Remove what
    killed imports left."""
    house = Custody.open()
    workspace, providers, audit, clock = house.workspace, house.providers, house.audit, house.clock
    user = house.account.name
    swept = sweep(workspace, providers=providers, audit=audit, clock=clock, user=user)
    runs = sweep_run_keys(workspace, providers=providers, audit=audit, clock=clock, user=user)
    unused = sweep_unused(workspace, providers=providers, audit=audit, now=clock.now(), user=user)
    left = _remove_abandoned(workspace)
    record = {
        "expired": [item.to_json() for item in swept.ended],
        "postponed": [
            {"data": late.name, "version": late.version, "why": why} for late, why in swept.postponed
        ],
        "runs": [item.to_json() for item in runs],
        "unused": [key.to_json() for key in unused],
        "abandoned": left,
    }
    emit(record, as_json=as_json, text="")
    for item in swept.ended:
        say(
            f"{item.name} version {item.versions[0]}: key destroyed, {item.freed_bytes} bytes removed, "
            "nothing opens any more"
        )
    for idle in unused:
        say(f"{idle.kek_id}: key destroyed, no version was under it")
    for key in runs:
        say(
            f"{key.kek_id}: key destroyed, checkpoints of {len(key.runs)} runs removed "
            f"({key.freed_bytes} bytes), none opens any more; exports stay"
        )
    for folder in left:
        say(f"{folder}: removed, a killed command had left it")
    for late, why in swept.postponed:
        say(f"{late.name} version {late.version} is past its retention and was NOT ended: {why}")
    say(f"keys older than policy: {len(swept.postponed)}")
    if swept.postponed:
        raise typer.Exit(1)


def _remove_abandoned(workspace: Workspace) -> list[str]:
    """Nothing in a place that workspaces share: the writer may be on another machine."""
    removed = []
    for begun in abandoned(workspace.data) if workspace.bulk == workspace.data else ():
        begun.remove()
        removed.append(begun.folder)
    return removed


def _record(info: KekInfo, *, provider: str, opens: list[str]) -> dict[str, Any]:
    return {
        "kek_id": info.kek_id,
        "provider": provider,
        "period": info.period,
        "state": info.state,
        "created": timestamp(info.created),
        "expires": timestamp(info.expires) if info.expires else None,
        "destroyed": timestamp(info.destroyed) if info.destroyed else None,
        "opens": opens,
    }


def _versions_by_key(workspace: Workspace) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, versions in list_datasets(workspace.bulk):
        for number in versions:
            envelope = Dataset.open(workspace.bulk, name=name, version=number).envelope()
            found[(envelope.provider, envelope.kek_id)].append(f"{name} {number}")
    return found

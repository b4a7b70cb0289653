"""`rsc audit ...` and `rsc verify`: the tamper-evident log, and every promise checked again."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.audit.disk import LocalDisk
from rsc.audit.export import export_log, verify_folder
from rsc.audit.note import Verifier
from rsc.audit.verify import LogReport
from rsc.audit.witness import Witness
from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.clock import timestamp
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle.attest import attest
from rsc.release.verify.promise import Promise
from rsc.release.verify.verify import verify as verify_promises
from rsc.store.verify import VerifyPart
from rsc.untrusted import printable

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Show, verify and export the tamper-evident log."
)

Log = Annotated[
    Path | None, typer.Option("--log", help="A log folder, such as an export; else this workspace's.")
]
Key = Annotated[
    str | None, typer.Option("--key", help="The verifier key (the line in log.vkey), or its file.")
]
_WIDTH = 100  # columns of a terminal of usual size

WitnessFile = Annotated[
    Path | None, typer.Option("--witness", help="File of checkpoints kept by a second party.")
]


@app.command("show")
def show(
    data: Annotated[str | None, typer.Option(help="Only what is about this data set.")] = None,
    last: Annotated[int, typer.Option(min=0, help="How many records, the newest; 0 is all.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """The records, oldest first."""
    entries = list(deque(Custody.open().audit.entries(data=data), maxlen=last or None))
    rows = [(entry["index"], entry["time"], entry["kind"], _rest(entry)) for entry in entries]
    emit({"records": entries}, as_json=as_json, text=table(rows, header=("no", "time", "kind", "facts")))


@app.command("verify")
def verify_log(
    log: Log = None, key: Key = None, witness: WitnessFile = None, as_json: JsonFlag = False
) -> None:
    """Re-check every record, hash and signature; exit code 1 when anything is wrong."""
    known = Witness(witness).known() if witness else {}
    if log is None:
        report = Custody.open().audit.verify(known=known)
    else:
        report = verify_folder(log, key=_key_text(log, key), known=known)
    emit(report.to_json(), as_json=as_json, text=_report_text(report))
    if not report.is_intact:
        raise typer.Exit(1)


@app.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="A new folder for the published log.")],
    as_json: JsonFlag = False,
) -> None:
    """Copy the published log and its public key: all that another machine needs to verify it."""
    house = Custody.open()
    log = house.audit
    checkpoint = export_log(log, source=house.workspace.audit, target=target)
    facts = {"origin": checkpoint.origin, "size": checkpoint.size, "key": log.verifier.to_text()}
    emit({"path": str(target), **facts}, as_json=as_json, text="")
    say(f"wrote {target}: {checkpoint.size} records under {checkpoint.origin}")
    say("give the verifier key to the other side by another way than the log")
    next_commands(("rsc", "audit", "verify", "--log", target, "--key", log.verifier.to_text()))


@app.command("attest")
def attest_(as_json: JsonFlag = False) -> None:
    """Record what a workspace of an older RSC does not have in its log: reviewers, shared versions, runs."""
    done = attest(Custody.open())
    emit(done.to_json(), as_json=as_json, text="")
    for what, names in (("reviewer", done.reviewers), ("run", done.runs)):
        for name in names:
            say(f"{what} {name}: recorded as its files say today")
    for name, version in done.versions:
        say(f"{name} version {version}: recorded with the root that it has today")
    for refused in done.refused:
        say(f"NOT recorded: {refused}")
    if not (done.reviewers or done.runs or done.versions or done.refused):
        say("the log knows every reviewer, version and run here")
    next_commands("rsc audit show", "rsc verify")


@app.command("checkpoint")
def checkpoint(
    witness: WitnessFile = None,
    post: Annotated[str | None, typer.Option(help="Send it to the witness at this URL.")] = None,
    post_key: Annotated[str | None, typer.Option(help="The verifier key of that witness.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish and print the signed checkpoint; with a witness, hand it over."""
    log = Custody.open().audit
    note = log.checkpoint()
    if witness is not None:
        Witness(witness).add(note, verifier=log.verifier)
        say(f"added to {witness}")
    if post is not None:
        if post_key is None:
            raise ConfigError("--post needs --post-key, the verifier key of that witness")
        note = _cosigned(note, url=post, key=post_key)
    emit({"checkpoint": note.decode()}, as_json=as_json, text=note.decode().removesuffix("\n"))


def _cosigned(note: bytes, *, url: str, key: str) -> bytes:
    from rsc.audit.remote import COSIGNATURE, send_checkpoint  # loads HTTP, which nothing else needs

    disk = LocalDisk(Workspace.from_environment().audit)
    cosigned = send_checkpoint(disk, note, url=url, witness=Verifier.from_text(key, kind=COSIGNATURE))
    say(f"cosigned at {timestamp(cosigned.seen)}")
    return cosigned.note


def verify(
    watch: Annotated[float | None, typer.Option(help="Check again every so many seconds.")] = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Also read every byte of all shards; needs no key.")
    ] = False,
    read_data_subset: Annotated[
        str | None, typer.Option(help="Only this part of them: 2/7, another one each day of the week.")
    ] = None,
    planted: Annotated[
        Path | None,
        typer.Option(help="Search every file for the values in this one, a line each; - reads stdin."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Re-check every promise: its state, since when, what data is concerned. Exit code 1 when one fails."""
    read = _part(read_data, subset=read_data_subset)
    values = _planted(planted)
    rows = _promises(read, planted=values)
    _emit_promises(rows, as_json=as_json)
    while watch is not None:
        time.sleep(watch)
        before, rows = rows, _promises(read, planted=values)
        if [row.state for row in rows] != [row.state for row in before]:
            _emit_promises(rows, as_json=as_json)
    if any(row.state != "kept" for row in rows):
        raise typer.Exit(1)


def _part(read_data: bool, *, subset: str | None) -> VerifyPart | None:
    """Which shards are read, every byte of them. Raises ConfigError for a subset that is none."""
    if read_data and subset is not None:
        raise ConfigError(
            "--read-data reads all shards, --read-data-subset a part of them", hint="give one of the two"
        )
    if subset is not None:
        return VerifyPart.parse(subset)
    return VerifyPart() if read_data else None


def _planted(file: Path | None) -> tuple[str, ...]:
    """Lines of a file of values that were put into a source on purpose; blank ones are left out."""
    if file is None:
        return ()
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}", hint="a text file with a value a line") from None
    values = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not values:
        raise ConfigError(f"{file} holds no values", hint="a text file with a value a line")
    return values


def _promises(read: VerifyPart | None, *, planted: tuple[str, ...]) -> list[Promise]:
    house = Custody.open()
    return verify_promises(
        house.workspace,
        providers=house.providers,
        audit=house.audit,
        clock=house.clock,
        read=read,
        planted=planted,
    )


def _emit_promises(rows: list[Promise], *, as_json: bool) -> None:
    is_kept = all(row.state == "kept" for row in rows)
    result = {"is_kept": is_kept, "promises": [row.to_json() for row in rows]}
    emit(result, as_json=as_json, text=promises_text(rows))


def promises_text(rows: list[Promise]) -> str:
    """A table of at most `_WIDTH` columns: what does not fit goes on in the next line."""
    since = [timestamp(row.since)[:10] if row.since else "-" for row in rows]
    width = _WIDTH - max(len(row.name) for row in rows) - len("unknown") - len("2026-11-21") - 6
    cells: list[tuple[str, str, str, str]] = []
    for row, day in zip(rows, since, strict=True):
        told = f"{', '.join(row.data)}: {row.told}" if row.data else row.told
        first, *more = textwrap.wrap(printable(told, keep=""), width) or [""]
        cells += [(row.name, row.state, day, first), *(("", "", "", line) for line in more)]
    return table(cells, header=("promise", "state", "since", "what"))


def _key_text(log: Path, key: str | None) -> str:
    """The key that was given; one that lies beside the log proves nothing about who wrote it."""
    if key is None:
        raise ConfigError(
            f"verifying {log} needs the verifier key of its owner",
            hint="get the line of log.vkey from them by another way than the log, and give it as --key",
        )
    return Path(key).read_text() if "+" not in key else key


def _report_text(report: LogReport) -> str:
    head = f"{report.size} records under {report.origin}, root {report.root[:16]}"
    if report.is_intact:
        return f"{head}: intact"
    return "\n".join(
        [f"{head}: DAMAGED", *(f"{problem.where}: {problem.what}" for problem in report.problems)]
    )


def _rest(entry: dict[str, Any]) -> str:
    hidden = ("index", "time", "kind")
    return " ".join(f"{name}={_short(value)}" for name, value in entry.items() if name not in hidden)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:12] + "..."

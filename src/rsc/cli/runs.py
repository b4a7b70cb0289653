"""`rsc runs ...`: what was trained, what is training, and going on with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.api import run_records, training
from rsc.cli.output import JsonFlag, Yes, confirm, emit, next_commands, say, table
from rsc.clock import SystemClock
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.config import Workspace
from rsc.control.follow import Following
from rsc.control.submission import live_job
from rsc.errors import ConfigError
from rsc.runs.folder import RunFolder, find_run, unreadable_runs
from rsc.units import format_bytes, format_seconds
from rsc.untrusted import UntrustedFolder, printable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_FOLLOW_S = 2.0  # a question to Slurm each time, of a run that is a job
_LINE_LETTERS = 4096  # of a line of a log; what training code wrote there may be one line of gigabytes
_LOG_BYTES = 4 << 20  # of the end of a log, in which the last lines are looked for

Run = Annotated[str, typer.Argument(help="Id of a run, a unique part of it, or `last`.")]


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the runs of this workspace, oldest first."""
    rows = run_records.runs()
    for name in unreadable_runs(Workspace.from_environment().runs):
        say(f"left out: {name}, whose run.json cannot be read")
    header = ["run", "state", "step", "loss"]
    cells = [[row.id, row.state, f"{row.step}/{row.steps}", _loss(row.loss)] for row in rows]
    if any(row.job for row in rows):
        header.append("job")
        cells = [[*line, row.job or "-"] for line, row in zip(cells, rows, strict=True)]
    result = {"runs": [row.to_json() for row in rows]}
    emit(result, as_json=as_json, text=table(cells, header=header))
    if not rows:
        next_commands("rsc recipes ls", "rsc train RECIPE data.name=NAME")


@app.command("show")
def show(run: Run, as_json: JsonFlag = False) -> None:
    """Show one run: state, lineage, failures, lost work, and whether an erasure marked it."""
    result = run_records.run(run).to_json()
    emit(result, as_json=as_json, text=_describe(result))


@app.command("follow")
def follow(run: Run, as_json: JsonFlag = False) -> None:
    """Show the steps of a run as they come, until it ends; Ctrl-C leaves the run alone."""
    folder = _find(run)
    Following(folder, say=say, clock=SystemClock()).to_its_end()
    result = run_records.run_at(folder).to_json()
    emit(result, as_json=as_json, text="")
    say(f"run {folder.id}: {result['state']} at step {result['step']} {result['reason']}".rstrip())
    next_commands(f"rsc runs show {folder.id}")


@app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs.")], as_json: JsonFlag = False
) -> None:
    """Show runs beside each other: results, settings that differ, and how far their losses are equal."""
    found = run_records.compare(*runs)
    rows = [(name, *map(_cell, values)) for name, values in {**found.figures, **found.settings}.items()]
    equal = f"losses are equal, bit for bit, in {found.equal_steps} of {found.common_steps} common steps"
    text = table(rows, header=("", *found.runs))
    emit(found.to_json(), as_json=as_json, text=f"{text}\n{equal}")


@app.command("rm")
def rm(run: Run, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Remove a run with its checkpoints and the exports in its folder. The log keeps what it was."""
    folder = _find(run)
    confirm(f"remove run {folder.id} with its checkpoints and the exports in its folder", yes=yes)
    removed = run_records.remove_run(folder.id)
    emit(removed.to_json(), as_json=as_json, text="")
    say(f"run {removed.run} is removed, {format_bytes(removed.freed_bytes)} freed")
    next_commands("rsc runs ls")


@app.command("logs")
def logs(
    run: Run,
    rank: Annotated[int, typer.Option(help="Rank whose log to print.")] = 0,
    lines: Annotated[int, typer.Option(help="Lines from the end.")] = 40,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="And what comes, until the run ends; a job is waited for.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the end of a rank's log."""
    found_run, name = _find(run), f"logs/rank{rank}.log"
    if follow:
        _follow_log(found_run, name)
        return
    folder = found_run.path
    try:
        data, _ = UntrustedFolder(folder).read_end(name, size_bytes=_LOG_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no log {folder / name}", hint="the run has had no such rank yet"
        ) from None
    found = data.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []
    found = [_shortened(line) for line in found]
    emit({"path": str(folder / name), "lines": found}, as_json=as_json, text="\n".join(found))


@app.command("stop")
def stop(
    run: Run,
    now: Annotated[bool, typer.Option("--now", help="Without a checkpoint at this step.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask a running run to write a checkpoint and leave (exit code 75)."""
    folder = _find(run)
    if (told := training.stop_job(folder, now=now)) is not None:
        emit({"run": folder.id, "pid": None, "with_checkpoint": not now}, as_json=as_json, text="")
        say(told)
        next_commands(f"rsc runs show {folder.id}", f"rsc runs resume {folder.id}")
        return
    holder = folder.holder()
    if holder is None:
        raise ConfigError(f"run {folder.id} is not running", hint=f"see `rsc runs show {folder.id}`")
    os.kill(holder, signal.SIGINT if now else signal.SIGTERM)
    emit({"run": folder.id, "pid": holder, "with_checkpoint": not now}, as_json=as_json, text="")
    say(f"asked process {holder} to {'stop now' if now else 'checkpoint and stop'}")
    next_commands(f"rsc runs show {folder.id}", f"rsc runs resume {folder.id}")


@app.command("resume")
def resume(
    run: Annotated[str, typer.Argument(help="A run, or where its checkpoints were copied to.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="train.steps=N trains to another step; nothing else changes.")
    ] = None,
    on: Annotated[
        str, typer.Option("--on", help="local or slurm; without it where the run was started.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", help="In a process of its own.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Go on with a run from its newest good checkpoint; also one copied away: `s3://bucket/prefix/RUN`."""
    from rsc.cli.train import finish

    done = training.resume(run, *(overrides or []), on=on, detach=detach, check=False, say=say)
    finish(done, is_detached=detach, as_json=as_json)


@app.command("export")
def export(
    run: Run,
    target: Annotated[Path | None, typer.Option("--to", help="A new folder; else one in the run.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    step: Annotated[str, typer.Option(help="newest, best (by validation), or a step.")] = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Write open weights, tokenizer and a model card."""
    from rsc.api.exports import export as export_run  # brings torch

    done = export_run(run, to=target, dtype=dtype, step=step)
    for damaged in done.passed_over:
        say(f"the checkpoint of step {damaged} is damaged; an older one is exported")
    emit(done.to_json(), as_json=as_json, text=done.path)
    if done.reason:
        say(f"in RSC's own layout, not an open one: {done.reason}")
    verb = ("rsc", "generate", done.path) if done.is_language else ("rsc", "predict", done.path, "FILE")
    next_commands(verb)


def _follow_log(run: RunFolder, name: str) -> None:
    """Print a log as it grows; a job that waits is waited for."""
    slurm, files, at = InstalledSlurm(), UntrustedFolder(run.path), 0
    while True:
        is_over = run.holder() is None and live_job(run, slurm) is None
        data, at = _more_of(files, name, at=at)
        sys.stdout.write(printable(data.decode(errors="replace")))
        sys.stdout.flush()
        if is_over and not data:
            return
        time.sleep(_FOLLOW_S)


def _more_of(files: UntrustedFolder, name: str, *, at: int) -> tuple[bytes, int]:
    """What a log has beyond `at`, and its end now; of a log that was cut short, or grew by much, the end."""
    try:
        fd = files.open(name)
    except FileNotFoundError:
        return b"", at
    with os.fdopen(fd, "rb") as file:
        size = os.fstat(fd).st_size
        at = max(0, size - _LOG_BYTES) if size - at > _LOG_BYTES else min(at, size)
        data = os.pread(file.fileno(), _LOG_BYTES, at)
    return data, at + len(data)


def _shortened(line: str) -> str:
    more = len(line) - _LINE_LETTERS
    return line if more <= 0 else f"{line[:_LINE_LETTERS]}... and {more:,} letters more"


def _find(name: str) -> RunFolder:
    return find_run(Workspace.from_environment().runs, name)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _describe(result: dict[str, Any]) -> str:
    lineage = result["lineage"]
    data = lineage.get("data", {})
    review = lineage.get("review", {})
    single = " (single person)" if review.get("single_person") else ""
    ettr = "-" if result["ettr"] is None else f"{result['ettr']:.1%}"
    rows = [
        ("run", result["id"]),
        ("state", " ".join(filter(None, [result["state"], result["reason"]]))),
        *([("now", result["doing"])] if result["doing"] else []),
        *([("job", f"{result['job']} {result['nodes']}")] if result["job"] else []),
        *(("marked", mark) for mark in result["marks"]),
        ("step", f"{result['step']} of {result['steps']}, loss {_loss(result['loss'])}"),
        ("data", f"{data.get('name')} version {data.get('version')}, root {str(data.get('root_hash'))[:16]}"),
        ("review", f"{review.get('state')}{single} by {', '.join(review.get('approvers', []))}"),
        ("key period", lineage.get("key_period")),
        ("recipe", str(lineage.get("recipe_sha256"))[:16]),
        ("layout", lineage.get("layout")),
        ("restarts", f"{result['restarts']}, {result['lost_steps']} steps done again"),
        ("time", f"{format_seconds(result['driven_s'])} driven, {ettr} of it in steps that counted (ETTR)"),
        *_promise(result),
        ("checkpoints", f"{result['checkpoints']} written, {result['failed_checkpoints']} failed"),
    ]
    told = [
        f"  step {event.get('step')}: {printable(_sentence(event), keep='')}"
        for event in result["failures_seen"]
    ]
    return "\n".join([table(rows, header=("", "")).lstrip("\n"), *(["failures:", *told] if told else [])])


def _promise(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was expected beside what happened."""
    expected, step_s = result["prediction"], result["step_s"]
    held = expected.get("memory_bytes") if expected else None
    if not isinstance(held, int | float):
        return []
    each, low, high = (expected.get(name) for name in ("step_s", "low_s", "high_s"))
    if not all(isinstance(value, int | float) and value > 0 for value in (each, low, high)):
        return [("expected", f"{format_bytes(held)} a rank; time unknown ({expected.get('why')})")]
    energy = expected.get("energy_wh")
    used = f"{energy / 1000:.3g} kWh" if isinstance(energy, int | float) else "energy unknown"
    range_s = f"{format_seconds(low)} to {format_seconds(high)}"
    told = [("expected", f"{format_seconds(each)} a step ({range_s}), {format_bytes(held)} a rank, {used}")]
    if step_s:
        told.append(("happened", f"{format_seconds(step_s)} a step: {100 * (step_s / each - 1):+.0f} %"))
    return told


def _sentence(event: dict[str, Any]) -> str:
    if event["kind"] == "failure" and event["rank"] is None:
        return f"the supervisor was killed: {event['message']}"
    if event["kind"] == "failure":
        return f"rank {event['rank']} failed first, {event['reason']}: {event['message']}"
    if event["kind"] == "straggler":
        return f"rank {event['rank']} is slow: {event['own_s']:.3f} s of its own work in a step"
    return f"{event['kind'].replace('_', ' ')}: {event.get('reason') or event.get('loss')}"

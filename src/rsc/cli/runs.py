"""`rsc runs ls|show|logs|stop|resume`: what was trained, what is training, and going on with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.clock import SystemClock
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.jobs import Job
from rsc.config import Workspace
from rsc.control.crash_loop import refuse_crash_loop
from rsc.control.slurm_states import jobs_of
from rsc.control.submission import live_job
from rsc.errors import ConfigError
from rsc.recipes.recipe import recipe_of
from rsc.runs.folder import RunFolder, RunState, find_run, list_runs, unreadable_runs
from rsc.runs.slurm_job import note_job, read_job
from rsc.runs.status import present
from rsc.runs.time_ledger import ledger
from rsc.units import format_seconds
from rsc.untrusted import UntrustedFolder, printable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_FOLLOW_S = 2.0  # a question to Slurm each time
_LOG_BYTES = 4 << 20  # of the end of a log, in which the last lines are looked for
_FAILURES = ("failure", "gave_up", "bad_batch", "straggler", "checkpoint_failed", "checkpoint_damaged")

Run = Annotated[str, typer.Argument(help="Id of a run, a unique part of it, or `last`.")]


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the runs of this workspace, oldest first."""
    runs = Workspace.from_environment().runs
    every = list_runs(runs)
    jobs = _jobs(every)
    rows = [_row(run, job=jobs.get(run.id)) for run in every]
    for name in unreadable_runs(runs):
        say(f"left out: {name}, whose run.json cannot be read")
    cells = [
        (row["id"], row["state"], f"{row['step']}/{row['steps']}", _loss(row["loss"]), row.get("job", "-"))
        for row in rows
    ]
    header = ("run", "state", "step", "loss", "job")
    if not any("job" in row for row in rows):
        cells, header = [cell[:-1] for cell in cells], header[:-1]  # type: ignore[misc, assignment]
    emit({"runs": rows}, as_json=as_json, text=table(cells, header=header))


@app.command("show")
def show(run: Run, as_json: JsonFlag = False) -> None:
    """Show one run: state, lineage, failures, lost work."""
    folder = _find(run)
    clock = SystemClock()
    events = folder.told()
    account = ledger(events, metrics=folder.metrics(), now=clock.now())
    failures = [event for event in events if event["kind"] in _FAILURES]
    job = _jobs([folder]).get(folder.id)
    result = {
        **_row(folder, job=job),
        "path": str(folder.path),
        **account.to_json(),
        "failures_seen": failures,
    }
    emit(result, as_json=as_json, text=_describe(result))


@app.command("logs")
def logs(
    run: Run,
    rank: Annotated[int, typer.Option(help="Rank whose log to print.")] = 0,
    lines: Annotated[int, typer.Option(help="Lines from the end.")] = 40,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="And what comes, until the run ends.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the end of a rank's log."""
    found_run = _find(run)
    folder, name = found_run.path, f"logs/rank{rank}.log"
    if follow:
        _follow(found_run, name)
        return
    try:
        data, _ = UntrustedFolder(folder).read_end(name, size_bytes=_LOG_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no log {folder / name}", hint="the run has had no such rank yet"
        ) from None
    found = data.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []
    emit({"path": str(folder / name), "lines": found}, as_json=as_json, text="\n".join(found))


@app.command("stop")
def stop(
    run: Run,
    now: Annotated[bool, typer.Option("--now", help="Without a checkpoint at this step.")] = False,
) -> None:
    """Ask a running run to write a checkpoint and leave (exit code 75)."""
    folder = _find(run)
    if read_job(folder) is not None and live_job(folder, InstalledSlurm()) is not None:
        from rsc.cli.train import site_of_workspace, submission

        say(submission(site_of_workspace()).stop(folder, now=now))
        next_commands(f"rsc runs show {folder.id}", f"rsc runs resume {folder.id}")
        return
    holder = folder.holder()
    if holder is None:
        raise ConfigError(f"run {folder.id} is not running", hint=f"see `rsc runs show {folder.id}`")
    os.kill(holder, signal.SIGINT if now else signal.SIGTERM)
    say(f"asked process {holder} to {'stop now' if now else 'checkpoint and stop'}")
    next_commands(f"rsc runs show {folder.id}", f"rsc runs resume {folder.id}")


@app.command("resume")
def resume(
    run: Run,
    on: Annotated[
        str, typer.Option("--on", help="local or slurm; without it where the run was started.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Go on with a run from its newest good checkpoint; also one copied away: `s3://bucket/prefix/RUN`."""
    from rsc.checkpoint.replicas import fetch_run
    from rsc.cli.train import controller, finish, place, site_of_workspace, submission, submitted

    runs = Workspace.from_environment().runs
    folder = RunFolder(fetch_run(run, runs=runs)) if "/" in run else find_run(runs, run)
    site, was = site_of_workspace(), "slurm" if read_job(folder) is not None else "local"
    if place(on or ("" if "SLURM_JOB_ID" in os.environ else was), site=site) == "slurm":
        submitted(folder, job=submission(site).resume(folder), as_json=as_json)
        return
    if was == "slurm" and (job := os.environ.get("SLURM_JOB_ID", "")).isdecimal():
        note_job(folder, job)  # a person may have submitted the script by hand
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        refuse_crash_loop(folder, limit=recipe_of(folder).train.max_failures_without_progress)
    finish(folder, code=controller().resume(folder), as_json=as_json)


@app.command("export")
def export(
    run: Run,
    target: Annotated[Path | None, typer.Option("--to", help="A new folder; else one in the run.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    step: Annotated[str, typer.Option(help="newest, best (by validation), or a step.")] = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Write open weights, tokenizer and a model card."""
    from rsc.cli.export import export_run

    workspace = Workspace.from_environment()
    export_run(_find(run), workspace=workspace, target=target, dtype=dtype, step=step, as_json=as_json)


def _find(name: str) -> RunFolder:
    return find_run(Workspace.from_environment().runs, name)


def _jobs(runs: list[RunFolder]) -> dict[str, Job]:
    """By run: its job, while Slurm knows it. A Slurm that does not answer hides no run."""
    jobs, problem = jobs_of(runs, InstalledSlurm())
    if problem:
        say(f"states are those of the runs' folders: {problem}")
    return jobs


def _row(run: RunFolder, *, job: Job | None = None) -> dict[str, Any]:
    """The record, with what its file does not know: of a job the state that Slurm gives it, spelled so; of a
    run that is driven where it is and what it does. A run whose controller died without a word is
    interrupted, whatever its file says."""
    record = asdict(run.record())
    if job is not None:
        record |= {"job": job.id, "nodes": job.nodes}
    if job is not None and job.is_live:
        now = present(run, now=SystemClock().now()) if job.state == "RUNNING" else None
        doing = {"step": now.step, "loss": now.loss, "doing": now.doing} if now else {}
        return record | {"state": job.state, "reason": job.reason} | doing
    if record["state"] != RunState.RUNNING:
        return record
    now = present(run, now=SystemClock().now())
    record |= {"step": now.step, "loss": now.loss}
    if run.holder() is None:
        return record | {"state": RunState.INTERRUPTED, "reason": "its controller ended without a word"}
    return record | {"doing": now.doing}


def _follow(run: RunFolder, name: str) -> None:
    """Print a log as it grows; a job that waits is waited for."""
    files, at = UntrustedFolder(run.path), 0
    while True:
        is_over = run.holder() is None and (read_job(run) is None or live_job(run, InstalledSlurm()) is None)
        try:
            fd = files.open(name)
        except FileNotFoundError:
            data = b""
        else:
            with os.fdopen(fd, "rb") as file:
                size = os.fstat(fd).st_size
                at = max(0, size - _LOG_BYTES) if size - at > _LOG_BYTES else min(at, size)
                data = os.pread(file.fileno(), _LOG_BYTES, at)
        at += len(data)
        sys.stdout.write(printable(data.decode(errors="replace")))
        sys.stdout.flush()
        if is_over and not data:
            return
        time.sleep(_FOLLOW_S)


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
        *([("now", result["doing"])] if "doing" in result else []),
        *([("job", f"{result['job']} {result['nodes']}")] if "job" in result else []),
        ("step", f"{result['step']} of {result['steps']}, loss {_loss(result['loss'])}"),
        ("data", f"{data.get('name')} version {data.get('version')}, root {str(data.get('root_hash'))[:16]}"),
        ("review", f"{review.get('state')}{single} by {', '.join(review.get('approvers', []))}"),
        ("key period", lineage.get("key_period")),
        ("recipe", str(lineage.get("recipe_sha256"))[:16]),
        ("layout", lineage.get("layout")),
        ("restarts", f"{result['restarts']}, {result['lost_steps']} steps done again"),
        ("time", f"{format_seconds(result['driven_s'])} driven, {ettr} of it in steps that counted (ETTR)"),
        ("checkpoints", f"{result['checkpoints']} written, {result['failed_checkpoints']} failed"),
    ]
    told = [
        f"  step {event.get('step')}: {printable(_sentence(event), keep='')}"
        for event in result["failures_seen"]
    ]
    return "\n".join([table(rows, header=("", "")).lstrip("\n"), *(["failures:", *told] if told else [])])


def _sentence(event: dict[str, Any]) -> str:
    if event["kind"] == "failure" and event["rank"] is None:
        return f"the supervisor was killed: {event['message']}"
    if event["kind"] == "failure":
        return f"rank {event['rank']} failed first, {event['reason']}: {event['message']}"
    if event["kind"] == "straggler":
        return f"rank {event['rank']} is slow: {event['own_s']:.3f} s of its own work in a step"
    return f"{event['kind'].replace('_', ' ')}: {event.get('reason') or event.get('loss')}"

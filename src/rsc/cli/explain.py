"""`rsc explain RUN|JOB`: why it waits, runs or ended, with what speaks for it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit
from rsc.cluster.slurm.commands import InstalledSlurm, SlurmCommands
from rsc.cluster.slurm.explain import why_ended, why_waiting
from rsc.cluster.slurm.facts import ask_facts
from rsc.cluster.slurm.jobs import Job, past_jobs, queued_jobs
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.runs.folder import RunFolder, find_run
from rsc.runs.slurm_job import read_job


def explain(
    run: Annotated[
        str, typer.Argument(help="Id of a run, a unique part of it, `last`, or the number of a job.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Say why a run or a job waits, or how it ended."""
    if run.isascii() and run.isdecimal():
        told = _of_job(run, InstalledSlurm())
    else:
        folder = find_run(Workspace.from_environment().runs, run)
        note = read_job(folder)
        told = (
            _of_run(folder) if note is None else {**_of_run(folder), **_of_job(note.newest, InstalledSlurm())}
        )
    emit(told, as_json=as_json, text="\n".join(told["lines"]))


def _of_run(folder: RunFolder) -> dict[str, Any]:
    record = folder.record()
    reason = f": {record.reason}" if record.reason else ""
    return {"run": folder.id, "lines": [f"run {folder.id} is {record.state} at step {record.step}{reason}"]}


def _of_job(number: str, slurm: SlurmCommands) -> dict[str, Any]:
    job = queued_jobs(slurm, user=str(os.getuid())).get(number)
    starts = past_jobs(slurm, [number]).get(number, [])
    if job is None and not starts:
        raise ConfigError(
            f"Slurm does not know job {number} of yours",
            hint="it forgets ended jobs after some minutes (MinJobAge) where the site has no accounting",
        )
    lines, facts = [], {}
    if job is not None and job.state == "PENDING":
        why = why_waiting(job, ask_facts(slurm))
        lines.append(f"job {number} waits: {why.sentence}")
        lines.append(f"it is expected to start at {job.start}" if job.start else "Slurm has no estimate yet")
        lines += [f"what would change it: {why.change}"] if why.change else []
        facts = {"reason": job.reason, "expected_start": job.start or None, "change": why.change}
    elif job is not None and job.is_live:
        lines.append(
            f"job {number} is {job.state} on {job.nodes} since {job.start}; {job.left} of {job.limit} left"
        )
    ended = [each for each in starts if not each.is_live] or ([job] if job and not job.is_live else [])
    lines += [_ended(each) for each in ended]
    return {"job": number, "state": (job or starts[-1]).state, **facts, "lines": lines}


def _ended(job: Job) -> str:
    where = f" on {job.nodes}" if job.nodes else ""
    when = f" at {job.end}" if job.end else ""
    return f"job {job.id} ended{where}{when} as {job.state}: {why_ended(job)}"

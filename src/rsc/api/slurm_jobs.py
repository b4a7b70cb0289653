"""Runs as jobs of Slurm: what waits and why, what the cluster has, stopping. `rsc explain`, `rsc cluster`."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from rsc.api.record import Record, html_table
from rsc.cluster.slurm.commands import InstalledSlurm, SlurmCommands
from rsc.cluster.slurm.duration import format_duration
from rsc.cluster.slurm.explain import why_ended, why_waiting
from rsc.cluster.slurm.facts import Node, Partition, ask_facts
from rsc.cluster.slurm.holders import holders
from rsc.cluster.slurm.jobs import SlurmJob, past_jobs, queued_jobs
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.runs.folder import RunFolder, find_run
from rsc.runs.slurm_job import read_job


@dataclass(frozen=True)
class Explanation(Record):
    """Why a run or a job waits, or how it ended."""

    run: str | None
    job: str | None
    state: str
    """As Slurm spells it; of a run without a job as `rsc runs ls` does."""
    lines: list[str]
    """The sentences."""
    reason: str | None = None
    expected_start: str | None = None
    change: str | None = None
    """What would change that it waits; None where waiting is all there is to do."""

    def _repr_html_(self) -> str:
        return html_table(f"{self.run or self.job}", [(line,) for line in self.lines])


@dataclass(frozen=True)
class ClusterStatus(Record):
    """What is free, used and out of service by partition, and who holds what."""

    partitions: list[dict[str, Any]]
    holders: list[dict[str, Any]]
    out: list[dict[str, str]]
    """Nodes on which nothing starts, with the words of who took them out."""

    def _repr_html_(self) -> str:
        rows = [tuple(each.values()) for each in self.partitions]
        return html_table("cluster", rows, header=tuple(self.partitions[0]) if rows else ())


def explain(name: str) -> Explanation:
    """Of a run by its id, a unique part of it or `last`, or of a job by its number."""
    slurm = InstalledSlurm()
    if name.isascii() and name.isdecimal():
        return _of_job(name, slurm)
    folder = find_run(Workspace.from_environment().runs, name)
    note, about = read_job(folder), _of_run(folder)
    if note is None:
        return about
    job = _of_job(note.newest, slurm)
    return Explanation(**{**job.to_json(), "run": folder.id, "lines": [*about.lines, *job.lines]})


def _of_run(folder: RunFolder) -> Explanation:
    record = folder.record()
    reason = f": {record.reason}" if record.reason else ""
    line = f"run {folder.id} is {record.state} at step {record.step}{reason}"
    return Explanation(folder.id, None, str(record.state), [line])


def _of_job(number: str, slurm: SlurmCommands) -> Explanation:
    job = queued_jobs(slurm, user=str(os.getuid())).get(number)
    starts = past_jobs(slurm, [number]).get(number, [])
    if job is None and not starts:
        raise ConfigError(
            f"Slurm does not know job {number} of yours",
            hint="it forgets ended jobs after some minutes (MinJobAge) where the site has no accounting",
        )
    lines: list[str] = []
    facts: dict[str, str | None] = {}
    if job is not None and job.state == "PENDING":
        why = why_waiting(job, ask_facts(slurm))
        lines.append(f"job {number} waits: {why.sentence}")
        lines.append(f"it is expected to start at {job.start}" if job.start else "Slurm has no estimate yet")
        lines += [f"what would change it: {why.change}"] if why.change else []
        facts = {"reason": job.reason, "expected_start": job.start or None, "change": why.change or None}
    elif job is not None and job.is_live:
        lines.append(
            f"job {number} is {job.state} on {job.nodes} since {job.start}; {job.left} of {job.limit} left"
        )
    ended = [each for each in starts if not each.is_live] or ([job] if job and not job.is_live else [])
    lines += [_ended(each) for each in ended]
    return Explanation(None, number, (job or starts[-1]).state, lines, **facts)


def _ended(job: SlurmJob) -> str:
    where = f" on {job.nodes}" if job.nodes else ""
    when = f" at {job.end}" if job.end else ""
    return f"job {job.id} ended{where}{when} as {job.state}: {why_ended(job)}"


def cluster_status() -> ClusterStatus:
    """Five questions to Slurm, whatever the size of the cluster."""
    slurm = InstalledSlurm()
    partitions = ask_facts(slurm).partitions.values()
    out = {(node.name, node.state, node.reason) for each in partitions for node in each.nodes if node.is_out}
    return ClusterStatus(
        partitions=[_row(each) for each in partitions],
        holders=[asdict(each) for each in holders(slurm)],
        out=[{"node": name, "state": state, "reason": reason} for name, state, reason in sorted(out)],
    )


def _row(partition: Partition) -> dict[str, Any]:
    nodes = partition.nodes
    out = [node for node in nodes if node.is_out]
    idle = [node for node in nodes if _is_idle(node)]
    return {
        "partition": partition.name + ("*" if partition.is_default else ""),
        "idle": len(idle),
        "used": len(nodes) - len(idle) - len(out),
        "out": len(out),
        "cpus": sum(node.cpus for node in nodes),
        "gpus": sum(node.gpus for node in nodes),
        "longest": "-" if partition.max_time_s is None else format_duration(partition.max_time_s),
    }


def _is_idle(node: Node) -> bool:
    return not node.is_out and node.state.startswith("idle")

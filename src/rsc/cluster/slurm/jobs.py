"""Jobs as Slurm tells of them: those in its queue (squeue), and those that its accounting remembers (sacct).

One question for all jobs of a user. States are spelled as Slurm spells them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from rsc.cluster.slurm.commands import SlurmCommands, rows
from rsc.errors import ResourceError

LAUNCH_FAILED = "launch_failed_requeued_held"
LIVE = frozenset(
    (
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD"),
        *("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    )
)
"""States of a job that may still do something."""

_QUEUE = (
    "id",
    "state",
    "reason",
    "partition",
    "qos",
    "nodes",
    "start",
    "limit",
    "left",
    "count",
    "user",
    "name",
)
_QUEUE_FORMAT = "%i|%T|%r|%P|%q|%N|%S|%l|%L|%D|%u|%j"
_PAST = ("id", "state", "code", "start", "end", "nodes", "reason", "name")
_PAST_FORMAT = "JobID,State,ExitCode,Start,End,NodeList,Reason,JobName"


@dataclass(frozen=True)
class SlurmJob:
    id: str
    state: str
    reason: str = ""
    """Why it waits or how it ended, as Slurm spells it: `Resources`, `NonZeroExitCode`; empty for none."""
    partition: str = ""
    qos: str = ""
    nodes: str = ""
    start: str = ""
    """When it started, or when Slurm expects that; empty where it says nothing."""
    limit: str = ""
    left: str = ""
    num_nodes: str = ""
    user: str = ""
    name: str = ""
    code: str = ""
    """`exit code:signal`, of the past alone."""
    end: str = ""

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def is_held_after_a_failed_launch(self) -> bool:
        """squeue writes the reason with blanks, scontrol with `_`."""
        return self.reason.replace(" ", "_") == LAUNCH_FAILED


def queued_jobs(slurm: SlurmCommands, *, user: str) -> dict[str, SlurmJob]:
    """Every job of a user that slurmctld knows, by id: those that wait or run, and for minutes the ended."""
    return parse_queue(slurm.ask("squeue", "-a", "-h", "-r", "-t", "all", "-u", user, "-o", _QUEUE_FORMAT))


def past_jobs(slurm: SlurmCommands, ids: Iterable[str]) -> dict[str, list[SlurmJob]]:
    """What accounting remembers of these, each start of a job by itself, oldest first; else nothing."""
    wanted = ",".join(sorted(set(ids)))
    if not wanted:
        return {}
    with contextlib.suppress(ResourceError):
        return parse_past(slurm.ask("sacct", "-n", "-P", "-X", "-D", "-j", wanted, "-o", _PAST_FORMAT))
    return {}


def parse_queue(text: str) -> dict[str, SlurmJob]:
    found = {}
    for row in rows(text, columns=_QUEUE):
        found[row["id"]] = SlurmJob(
            id=row["id"],
            state=row["state"],
            reason=_word(row["reason"]),
            partition=row["partition"],
            qos=_word(row["qos"]),
            nodes=row["nodes"],
            start=_word(row["start"]),
            limit=row["limit"],
            left=row["left"],
            num_nodes=row["count"],
            user=row["user"],
            name=row["name"],
        )
    return found


def parse_past(text: str) -> dict[str, list[SlurmJob]]:
    found: dict[str, list[SlurmJob]] = {}
    for row in rows(text, columns=_PAST):
        state = (row["state"].split() or [""])[0]  # `CANCELLED by 1000`
        job = SlurmJob(
            row["id"],
            state,
            _word(row["reason"]),
            nodes=_word(row["nodes"]),
            start=_word(row["start"]),
            end=_word(row["end"]),
            code=row["code"],
            name=row["name"],
        )
        found.setdefault(job.id, []).append(job)
    return {number: sorted(starts, key=attrgetter("start")) for number, starts in found.items()}


def _word(text: str) -> str:
    return "" if text in ("None", "(null)", "N/A", "Unknown", "None assigned", "NOT_SET") else text

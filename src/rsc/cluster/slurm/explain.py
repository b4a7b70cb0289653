"""Why a job waits, in a sentence, and what would change that. Pure: a table of Slurm's own reasons.

Not covered: reasons that a newer Slurm invents, which are printed as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rsc.cluster.slurm.facts import Facts, Partition
from rsc.cluster.slurm.jobs import LAUNCH_FAILED, SlurmJob


@dataclass(frozen=True)
class Why:
    sentence: str
    change: str
    """What would change it; empty where waiting is all there is to do."""


_REQUEUED = (
    "it starts not before a time; a requeued job waits until credentials of its last start have run out"
)
_HELD = "its start failed on a node, as a rule by a prolog, and Slurm holds it until somebody releases it"
_DOWN = "Nodes required for job are DOWN"  # a sentence that goes on after a comma
_NEVER = ": as it is it never starts"

_WAITS = {
    "Resources": Why("no nodes with what it asks for are free now", "ask for fewer nodes or GPUs"),
    "Priority": Why(
        "jobs with a higher priority are before it",
        "a QOS with a higher priority, or a shorter slurm.time, which fits into gaps before larger jobs",
    ),
    "None": Why("Slurm has not looked at it yet", ""),
    _DOWN: Why(
        "the nodes that it needs are down, drained, or reserved for jobs of partitions above its own",
        "ask for fewer nodes, or wait until the nodes are back",
    ),
    "Dependency": Why("it waits for another job", ""),
    "BeginTime": Why(_REQUEUED, "the site can lower cred_expire in AuthInfo of slurm.conf"),
    "PartitionNodeLimit": Why(
        "it asks for more nodes than its partition gives a job", f"fewer nodes, or another partition{_NEVER}"
    ),
    "PartitionTimeLimit": Why(
        "it asks for more time than its partition gives a job", f"a shorter slurm.time{_NEVER}"
    ),
    "PartitionDown": Why("its partition is down", "another partition"),
    "PartitionInactive": Why("its partition is inactive", "another partition"),
    "ReqNodeNotAvail": Why(
        "a node that it needs is down, drained or reserved",
        "drop slurm.reservation or slurm.constraint, or wait until the node is back",
    ),
    "Licenses": Why("its licences are all in use", ""),
    "Reservation": Why("its reservation has not begun", ""),
    "JobHeldUser": Why("its user holds it", "scontrol release JOB"),
    "JobHeldAdmin": Why("an administrator holds it", "ask the administrator, who runs: scontrol release JOB"),
    "JobHoldMaxRequeue": Why(
        "it was requeued too often (MaxBatchRequeue)",
        "find out why it does not start; then: scontrol release JOB",
    ),
    LAUNCH_FAILED: Why(
        _HELD, "rsc runs resume RUN, which releases it (the site can set nohold_on_prolog_fail)"
    ),
    "NodeDown": Why("a node that it needs is down", ""),
    "AssocGrpGRES": Why("its account uses all the GPUs it may", ""),
    "InvalidAccount": Why("its account does not exist any more", "another slurm.account"),
    "InvalidQOS": Why("its QOS does not exist any more", "another slurm.qos"),
}

_LIMITS = re.compile(r"(QOS|Assoc)(Grp|Max)(\w+)")


def why_waiting(job: SlurmJob, facts: Facts | None = None) -> Why:
    """Of a job in state PENDING."""
    reason = (job.reason or "None").split(",")[0].strip()
    reason = LAUNCH_FAILED if job.is_held_after_a_failed_launch else reason
    if reason in _WAITS:
        known = _WAITS[reason]
        return Why(known.sentence + _evidence(job, facts, reason), known.change.replace("JOB", job.id))
    if limit := _LIMITS.fullmatch(reason):
        whose = f"the QOS {job.qos}" if limit[1] == "QOS" else "its account or user"
        return Why(
            f"{whose} is at its limit ({reason})",
            "it starts when other jobs under that limit end; or another one",
        )
    return Why(f"Slurm says {reason}", "")


def _evidence(job: SlurmJob, facts: Facts | None, reason: str) -> str:
    """What of the cluster speaks for it."""
    partition = facts.partitions.get(job.partition) if facts else None
    if partition is None or reason not in ("Resources", "Priority", "ReqNodeNotAvail", "NodeDown", _DOWN):
        return ""
    return f" (it wants {job.num_nodes}; partition {partition.name}: {counts_text(partition)})"


def counts_text(partition: Partition) -> str:
    """`4 nodes: 1 idle, 2 in use, 1 down or drained`."""
    out = [node for node in partition.nodes if node.is_out]
    idle = [node for node in partition.nodes if not node.is_out and node.state.startswith("idle")]
    used = len(partition.nodes) - len(out) - len(idle)
    return f"{len(partition.nodes)} nodes: {len(idle)} idle, {used} in use, {len(out)} down or drained"


_ENDS = {
    "COMPLETED": "it finished",
    "CANCELLED": "somebody cancelled it",
    "TIMEOUT": "it reached its time limit and was not requeued",
    "NODE_FAIL": "a node of it was lost",
    "PREEMPTED": "a job with a higher QOS took its nodes",
    "OUT_OF_MEMORY": "it used more memory than it asked for",
    "BOOT_FAIL": "a node of it did not boot",
    "DEADLINE": "it could not end before its deadline",
}


def why_ended(job: SlurmJob) -> str:
    if job.state == "FAILED" and job.reason == "JobLaunchFailure":
        return "it could not be started: its script or its log could not be opened on the node"
    if job.state == "FAILED":
        code = f" with code {job.code.split(':')[0]}" if job.code else ""
        return f"its script ended{code}"
    return _ENDS.get(job.state, f"Slurm says {job.state}")

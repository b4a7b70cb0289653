"""A job whose first node is lost has lost its script; with `--no-kill` Slurm lets the others keep theirs.

So a node that has lost the controller looks whether the first is still in the job, and requeues it if not.
"""

from __future__ import annotations

from collections.abc import Mapping

from rsc.clock import Clock
from rsc.cluster.slurm.commands import SlurmCommands, pairs
from rsc.errors import RscError

_WATCH_S = 900.0  # SlurmdTimeout, after which Slurm gives a silent node up, is 300 s by default
_LOOK_S = 2.0
_LOOK_OF_EACH_S = 0.1  # for each node of the job: they all ask the same slurmctld


def requeue_without_first_node(environment: Mapping[str, str], slurm: SlurmCommands, clock: Clock) -> bool:
    """Of the job of this process: wait until its first node is gone from it; whether the job was requeued.
    False when it ends, is no job, or goes on for 15 minutes."""
    job, count = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_JOB_NUM_NODES", "1")
    if not (job.isascii() and job.isdecimal()):
        return False
    pause_s = max(_LOOK_S, _LOOK_OF_EACH_S * int(count if count.isdecimal() else 1))
    until_s = clock.monotonic_s() + _WATCH_S
    while clock.monotonic_s() < until_s:
        try:
            told = pairs(slurm.ask("scontrol", "-o", "show", "job", job))
            if told.get("JobState") != "RUNNING":
                return False
            if told["BatchHost"] not in slurm.ask("scontrol", "show", "hostnames", told["NodeList"]).split():
                slurm.ask("scontrol", "requeue", job)
                return True
        except (RscError, LookupError):  # it is busy, or another node was faster
            pass
        clock.sleep(pause_s)
    return False

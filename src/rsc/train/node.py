"""`python -m rsc.train.node JOB [NODE]`: starts the ranks of one node, inside the sandbox.

Where the job has this node alone, their supervisor is in this process too; else this is the node's agent,
which joins the job (control/job.py) under the name NODE, with the secret that comes on its stdin.

Importing torch makes objects by the hundred thousand, none of them garbage: collections during it took a
fifth of its time (3.8 s of CPU time, 3.1 without). They are then left out of later collections, which the
ranks, forked from this process, would else each pay for by copying the pages that a collection touches.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from rsc.clock import SystemClock
from rsc.cluster.rendezvous.channel import read_secret
from rsc.cluster.rendezvous.member import Member
from rsc.cluster.supervise.agent import Agent
from rsc.cluster.supervise.local_node import OneNode, local_node
from rsc.cluster.supervise.supervisor import supervise
from rsc.events import EventLog
from rsc.hardening import harden_process
from rsc.recipes.sections import TrainConfig
from rsc.runs.node_job import NodeJob
from rsc.runs.worker_events import events_of_workers

_JOIN_S = 60.0  # for the controller to be reached; it listens before it starts an agent


def start(argument: str, node: str = "") -> int:
    harden_process()
    job = replace(NodeJob.from_json(argument), node=node)
    secret = read_secret(sys.stdin.fileno()) if job.hub is not None else b""
    gc.disable()
    from rsc.train.worker import work  # here, since it is the import that takes the time

    gc.freeze()
    gc.enable()
    run, config = Path(job.run), TrainConfig.model_validate(job.recipe["train"])
    events = EventLog(events_of_workers(run, node=node), clock=SystemClock())
    memories = _memories(job.workers, config=config, events=events)
    wards = _memories(job.workers, config=config, events=events) if job.hub is not None else ()
    entry = partial(work, job=job)
    with local_node(run, slots=job.workers, entry=entry, memories=memories, wards=wards) as here:
        if job.hub is None:
            return supervise(OneNode(here), config=config, events=events)
        member = Member.join(secret, address=job.hub, patience_s=_JOIN_S)
        return Agent(here, member, node, silence_s=job.silence_s).run()


def _memories(workers: int, *, config: TrainConfig, events: EventLog) -> tuple[int, ...]:
    """One memory file per rank for snapshots. Workers get them by the fork."""
    if not config.snapshot_every:
        return ()
    from rsc.checkpoint.snapshot import new_memory  # brings torch

    made = [new_memory() for _ in range(workers)] if sys.platform == "linux" else [None]
    found = tuple(descriptor for descriptor in made if descriptor is not None)
    if len(found) < workers:
        events.append("warning", message="train.snapshot_every is ignored: this system has no memfd")
        return ()
    return found


if __name__ == "__main__":
    exit_code = start(*sys.argv[1:])
    if multiprocessing.active_children():  # Python's end would wait for a rank that nothing can end
        os._exit(exit_code)
    sys.exit(exit_code)

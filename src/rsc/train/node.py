"""`python -m rsc.train.node JOB`: starts the ranks of one node under their supervisor, inside the sandbox.

Importing torch makes objects by the hundred thousand, none of them garbage: collections during it took a
fifth of its time (3.8 s of CPU time, 3.1 without). They are then left out of later collections, which the
ranks, forked from this process, would else each pay for by copying the pages that a collection touches.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path

from rsc.clock import SystemClock
from rsc.cluster.supervise.supervisor import supervise
from rsc.events import EventLog
from rsc.hardening import harden_process
from rsc.recipes.sections import TrainConfig
from rsc.runs.folder import events_of_workers
from rsc.runs.node_job import NodeJob


def start(argument: str) -> int:
    harden_process()
    job = NodeJob.from_json(argument)
    gc.disable()
    from rsc.train.worker import work  # here, since it is the import that takes the time

    gc.freeze()
    gc.enable()
    run, config = Path(job.run), TrainConfig.model_validate(job.recipe["train"])
    events = EventLog(events_of_workers(run), clock=SystemClock())
    return supervise(
        run,
        workers=job.workers,
        entry=partial(work, job=job),
        config=config,
        events=events,
        memories=_memories(job.workers, config=config, events=events),
    )


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
    sys.exit(start(sys.argv[1]))

"""What Slurm says of runs that are jobs: one question for all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rsc.cluster.slurm.commands import SlurmCommands
from rsc.cluster.slurm.jobs import SlurmJob, queued_jobs
from rsc.errors import RscError
from rsc.runs.folder import RunFolder
from rsc.runs.slurm_job import read_job


def jobs_of(runs: Sequence[RunFolder], slurm: SlurmCommands) -> tuple[dict[str, SlurmJob], str]:
    """By run, the job that slurmctld knows; and why Slurm gave no answer, empty where it did."""
    notes = {run.id: note.newest for run in runs if (note := read_job(run)) is not None}
    if not notes:
        return {}, ""
    try:
        jobs = queued_jobs(slurm, user=str(os.getuid()))
    except RscError as error:
        return {}, error.message
    return {run: jobs[job] for run, job in notes.items() if job in jobs}, ""

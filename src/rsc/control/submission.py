"""A run as a job of Slurm: made and checked here, then left to the queue. The job drives it.

The gate is asked first and the arithmetic is done second, so what is refused was never in the queue.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace

from rsc.cluster.config import ClusterConfig
from rsc.cluster.slurm.commands import SlurmCommands
from rsc.cluster.slurm.facts import Facts, ask_facts
from rsc.cluster.slurm.feasible import require_feasible
from rsc.cluster.slurm.jobs import SlurmJob, queued_jobs
from rsc.cluster.slurm.script import BatchJob, render
from rsc.cluster.slurm.site import JobSettings, Site
from rsc.control.controller import Controller
from rsc.control.run_plan import plan_run
from rsc.durable import replace_file
from rsc.errors import ConfigError, ResourceError, RscError
from rsc.interrupts import uninterrupted
from rsc.layers import Resolved, parse_as
from rsc.recipes.recipe import LoadedRecipe, recipe_of
from rsc.runs.folder import RunFolder, RunState
from rsc.runs.slurm_job import SCRIPT, note_job, read_job

_EXPEDITED = (25, 11)  # the first Slurm with --requeue=expedite
_JOB_ID = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True)
class Submission:
    controller: Controller
    site: Site
    slurm: SlurmCommands

    def start(self, loaded: LoadedRecipe, *, workers: int | None) -> tuple[RunFolder, str]:
        """Make a run and submit it; returns it with the id of its job.

        Raises GateRefused and ConfigError before there is a folder or a job.
        """
        ours = self.controller
        cluster, gpus = loaded.recipe.cluster, self.site.slurm.gpus_per_node
        workers = workers or loaded.recipe.parallel.workers or gpus * cluster.nodes or None
        plan = plan_run(loaded, gate=ours.gate, runs=ours.workspace.runs, workers=workers)
        facts = self._check(plan.recipe.cluster)
        with uninterrupted():
            run = ours.make(plan)
        return run, self._submit(run, facts)

    def resume(self, run: RunFolder) -> str:
        """Submit a run again; release one that Slurm holds after a failed start. Returns the id of the job.
        Raises ConfigError for a run whose job is alive."""
        if run.record().state is RunState.FINISHED:
            raise ConfigError(f"run {run.id} finished; nothing is left to do")
        live = live_job(run, self.slurm)
        if live is not None and live.is_held_after_a_failed_launch:
            self.slurm.ask("scontrol", "release", live.id)
            return live.id
        if live is not None:
            raise ConfigError(
                f"run {run.id} is job {live.id}, which is {live.state}",
                hint=f"`rsc explain {run.id}` prints why; `rsc runs stop {run.id}` ends it",
            )
        note = read_job(run)
        if note is None:
            return self._submit(run, self._check(recipe_of(run).cluster))
        before = parse_as(JobSettings, Resolved(f"job.json of {run.id}", note.asked, {}))
        again = replace(self, site=self.site.model_copy(update={"slurm": before}))
        return again._submit(run, again._check(recipe_of(run).cluster))

    def stop(self, run: RunFolder, *, now: bool) -> str:
        """Ask the job of a run to write a checkpoint and leave; one that waits, or `now`, is cancelled.
        Returns what was done. Raises ConfigError where there is no such job."""
        live = live_job(run, self.slurm)
        if live is None:
            raise ConfigError(f"run {run.id} has no job in the queue", hint=f"see `rsc runs show {run.id}`")
        if now or live.state != "RUNNING":
            self.slurm.ask("scancel", live.id)
            return f"cancelled job {live.id}, which was {live.state}"
        self.slurm.ask("scontrol", "update", f"JobId={live.id}", "Requeue=0")  # 75 would start it again
        self.slurm.ask("scancel", "--batch", "--signal=USR1", live.id)
        return f"asked job {live.id} to checkpoint and stop"

    def _check(self, cluster: ClusterConfig) -> Facts:
        facts = ask_facts(self.slurm)
        require_feasible(self.site.slurm, facts, nodes=cluster.nodes + cluster.spares)
        return facts

    def _submit(self, run: RunFolder, facts: Facts) -> str:
        try:
            text = render(self._job(run, facts))
            replace_file(run.path / SCRIPT, text.encode(), mode=0o644)
            answer = self.slurm.ask("sbatch", "--parsable", str(run.path / SCRIPT))
            found = _JOB_ID.match(answer)
            if found is None:
                raise ResourceError(f"sbatch answered {answer.strip()!r}, which names no job")
        except RscError as error:
            with run.locked():
                run.update(state=RunState.FAILED, reason=f"not submitted: {error.message}")
            raise
        note_job(run, found[0], asked=self.site.slurm.model_dump())
        return found[0]

    def _job(self, run: RunFolder, facts: Facts) -> BatchJob:
        cluster = recipe_of(run).cluster
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        return BatchJob(
            run=run.id,
            folder=run.path,
            command=(sys.executable, "-m", "rsc", "runs", "resume", run.id, "--on", "local"),
            environment={**kept, "RSC_HOME": str(self.controller.workspace.root)},
            site=self.site,
            nodes=cluster.nodes + cluster.spares,
            is_expedited=_version(facts.version) >= _EXPEDITED
            and "enable_expedited_requeue" in facts.config.get("SlurmctldParameters", ""),
        )


def live_job(run: RunFolder, slurm: SlurmCommands) -> SlurmJob | None:
    """The job of a run that waits or runs now."""
    note = read_job(run)
    if note is None:
        return None
    job = queued_jobs(slurm, user=str(os.getuid())).get(note.newest)
    return job if job is not None and job.is_live else None


def _version(text: str) -> tuple[int, ...]:
    """(25, 11) of `25.11.2`; zeros for what is no version."""
    found = re.match(r"([0-9]{1,3})\.([0-9]{1,3})", text, re.ASCII)
    return (int(found[1]), int(found[2])) if found else (0, 0)

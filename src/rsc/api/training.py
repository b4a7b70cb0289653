"""Train, and go on with a run: `rsc train` and `rsc runs resume`. No torch in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rsc.api.record import Record, entry, html_table
from rsc.api.run_records import RunDetails, run_at
from rsc.checkpoint.replicas import fetch_run
from rsc.cluster.slurm.allocation import launcher_of_job
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.site import Place, Site, read_site
from rsc.control.controller import Controller
from rsc.control.crash_loop import refuse_crash_loop
from rsc.control.monitor import ProgressLine, StepProgress
from rsc.control.submission import Submission, live_job
from rsc.control.wishes import CONTROLLER_LOG
from rsc.control.workspace_gate import WorkspaceGate
from rsc.errors import ConfigError, Interrupted, RequeueMe, ResourceError, RscError
from rsc.recipes.recipe import Recipe, load_recipe, recipe_of
from rsc.release.agent.custody import Custody
from rsc.runs.folder import RunFolder, find_run
from rsc.runs.slurm_job import note_job, read_job
from rsc.untrusted import UntrustedFolder

_STARTED_S = 60.0  # a controller takes its lock within a second of CPU time; a busy machine takes longer
_END_BYTES = 4096  # of such a log, for an error that ended it


@dataclass(frozen=True)
class TrainedRun(Record):
    """What became of a drive, or of a submission."""

    run: str
    path: str
    state: str
    step: int
    steps: int
    loss: float | None
    restarts: int
    resumed_at: int
    reason: str
    exit_code: int
    """As docs/exit-codes.md."""
    job: str | None = None
    """Number of the job of Slurm that was submitted and trains the run; the run is not trained yet."""

    @classmethod
    def of(cls, folder: RunFolder, *, exit_code: int, job: str | None = None) -> TrainedRun:
        record = asdict(folder.record())
        known = ("step", "steps", "loss", "restarts", "resumed_at", "reason")
        about: dict[str, Any] = {name: record[name] for name in known}
        return cls(folder.id, str(folder.path), str(record["state"]), exit_code=exit_code, job=job, **about)

    def folder(self) -> RunDetails:
        """The run with its lineage, its failures and its metrics."""
        return run_at(find_run(Custody.open().workspace.runs, self.run))

    def require_done(self) -> None:
        """Raises what the exit code stands for, unless the run finished."""
        if self.exit_code == 0:
            return
        kinds: dict[int, type[RscError]] = {
            kind.exit_code: kind for kind in (ConfigError, ResourceError, RequeueMe, Interrupted)
        }
        kind = kinds.get(self.exit_code, RscError)
        what = f"run {self.run} ended at step {self.step} of {self.steps} ({self.state})"
        raise kind(f"{what}: {self.reason}" if self.reason else what, hint=f"rsc runs resume {self.run}")

    def _repr_html_(self) -> str:
        loss = "-" if self.loss is None else f"{self.loss:.4f}"
        rows = [("state", self.state), ("step", f"{self.step} of {self.steps}"), ("loss", loss)]
        return html_table(f"run {self.run}", rows)


def say_on_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@entry
def train(
    recipe: str,
    *overrides: str,
    workers: int | None = None,
    on: str = "",
    detach: bool = False,
    check: bool = True,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> TrainedRun:
    """Train a recipe on approved data: `train("language", "data.name=posts", "train.steps=200")`.

    `detach` starts a process of its own and returns. `on="slurm"` submits a job and returns, and overrides
    `slurm.KEY=value` are what the job asks for; without `on` the workspace's cluster.toml says where.
    `progress` makes what is shown of each step from the number of steps. With `check`, a run that does not
    finish raises what its exit code stands for.
    Raises GateRefused and ConfigError before there is a run.
    """
    of_job = [each for each in overrides if each.strip().startswith("slurm.")]
    loaded = load_recipe(recipe, overrides=[each for each in overrides if each not in of_job])
    ours = controller(say=say, progress=progress)
    site = read_site(ours.workspace.root)
    if _place(on, site=site) == "slurm":
        submission = Submission(ours, site.with_overrides(of_job), InstalledSlurm())
        folder, job = submission.start(loaded, workers=workers)
        return TrainedRun.of(folder, exit_code=0, job=job)
    if of_job:
        raise ConfigError(f"{of_job[0]} is for Slurm, and this run starts here", hint="add --on slurm")
    if detach:
        return _detached(ours.prepare(loaded, workers=workers))
    folder, code = ours.start(loaded, workers=workers)
    return _ended(folder, code=code, check=check)


@entry
def resume(
    name: str,
    *overrides: str,
    on: str = "",
    detach: bool = False,
    check: bool = True,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> TrainedRun:
    """Go on with a run from its newest good checkpoint; `train.steps=N` gives it more steps, or fewer.

    `name` may be a place that checkpoints were copied to: `s3://bucket/prefix/RUN`. Without `on` a run goes
    on where it was started.
    """
    workspace = Custody.open().workspace
    folder = (
        RunFolder(fetch_run(name, runs=workspace.runs)) if "/" in name else find_run(workspace.runs, name)
    )
    was_job = read_job(folder) is not None
    site = read_site(workspace.root) if was_job or on else Site()
    if _place(on or ("slurm" if was_job and not _in_a_job() else ""), site=site) == "slurm":
        if overrides:
            raise ConfigError(
                f"a job of Slurm takes no {overrides[0]}", hint="resume it here: --on local, with the change"
            )
        ours = controller(say=say, progress=progress)
        return TrainedRun.of(folder, exit_code=0, job=Submission(ours, site, InstalledSlurm()).resume(folder))
    if was_job:
        _begin_start_of_job(folder)
    if detach:
        return _detached(folder, *overrides)
    code = controller(say=say, progress=progress).resume(folder, overrides=overrides)
    return _ended(folder, code=code, check=check)


def stop_job(folder: RunFolder, *, now: bool) -> str | None:
    """Ask the job of a run to write a checkpoint and leave, or, with `now` or where it waits, cancel it.
    Returns what was done; None for a run without a job in the queue."""
    slurm = InstalledSlurm()
    if live_job(folder, slurm) is None:
        return None
    ours = controller()
    return Submission(ours, read_site(ours.workspace.root), slurm).stop(folder, now=now)


def _place(on: str, *, site: Site) -> Place:
    """Where a run starts: what was asked, else what the site says; inside a job of Slurm always here."""
    if on not in ("", "slurm", "local"):
        raise ConfigError(f"{on} is no place for a run", hint="--on slurm or --on local")
    if on == "" and _in_a_job():
        return "local"
    return "slurm" if on == "slurm" or (on == "" and site.on == "slurm") else "local"


def _in_a_job() -> bool:
    return "SLURM_JOB_ID" in os.environ


def _begin_start_of_job(folder: RunFolder) -> None:
    """Of a run on Slurm: note the job, whose script a person may have submitted by hand, and refuse a storm
    of requeues."""
    if (job := os.environ.get("SLURM_JOB_ID", "")).isdecimal():
        note_job(folder, job)
    if (os.environ.get("SLURM_RESTART_COUNT") or "0").strip("0"):
        refuse_crash_loop(folder, limit=recipe_of(folder).train.max_failures_without_progress)


def controller(
    *,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> Controller:
    """The controller of the user's workspace, with the keys of its folder."""
    house = Custody.open()
    gate = WorkspaceGate(house.workspace, house.providers, house.clock, house.account)
    line = progress or (lambda steps: ProgressLine(steps=steps))
    launcher = launcher_of_job(os.environ, InstalledSlurm())

    def expects(recipe: Recipe) -> dict[str, Any]:
        from rsc.plan.expectation import expect, to_line  # numpy and tables: a resume needs none of them

        expected = expect(recipe, world=recipe.parallel.workers, workspace=house.workspace.root)
        say(to_line(expected))
        return expected

    return Controller(house.workspace, gate, launcher, house.clock, say, line, expects)


def _ended(folder: RunFolder, *, code: int, check: bool) -> TrainedRun:
    trained = TrainedRun.of(folder, exit_code=code)
    if check:
        trained.require_done()
    return trained


def _detached(folder: RunFolder, *overrides: str) -> TrainedRun:
    """Start the controller in a session of its own, which no terminal takes along, and see that it holds the
    run. Raises RscError with its last words where it ended before."""
    log = UntrustedFolder(folder.path).open_to_append(CONTROLLER_LOG)
    try:
        process = subprocess.Popen(
            _resume_command(folder, overrides),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        _wait_for_start(folder, process)
    finally:
        os.close(log)
    return TrainedRun.of(folder, exit_code=0)


def _resume_command(folder: RunFolder, overrides: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "rsc", "runs", "resume", folder.id, *overrides, "--on", "local"]


def _wait_for_start(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _STARTED_S
    while time.monotonic() < until:
        code = process.poll()
        if code == 0 or folder.holder() == process.pid:
            return
        if code is not None:
            end, _ = UntrustedFolder(folder.path).read_end(CONTROLLER_LOG, size_bytes=_END_BYTES)
            raise RscError(
                f"run {folder.id} did not start (exit code {code}): {end.decode(errors='replace').strip()}",
                hint=f"its log is {folder.path / CONTROLLER_LOG}",
            )
        time.sleep(0.05)

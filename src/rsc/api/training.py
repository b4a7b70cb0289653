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
from rsc.cluster.launch.launcher import LocalLauncher
from rsc.control.controller import Controller
from rsc.control.monitor import ProgressLine, StepProgress
from rsc.control.wishes import CONTROLLER_LOG
from rsc.control.workspace_gate import WorkspaceGate
from rsc.errors import ConfigError, Interrupted, RequeueMe, ResourceError, RscError
from rsc.recipes.recipe import load_recipe
from rsc.release.agent.custody import Custody
from rsc.runs.folder import RunFolder, find_run
from rsc.untrusted import UntrustedFolder

_STARTED_S = 60.0  # a controller takes its lock within a second of CPU time; a busy machine takes longer
_END_BYTES = 4096  # of such a log, for an error that ended it


@dataclass(frozen=True)
class TrainedRun(Record):
    """What became of a drive."""

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

    @classmethod
    def of(cls, folder: RunFolder, *, exit_code: int) -> TrainedRun:
        record = asdict(folder.record())
        known = ("step", "steps", "loss", "restarts", "resumed_at", "reason")
        about: dict[str, Any] = {name: record[name] for name in known}
        return cls(folder.id, str(folder.path), str(record["state"]), exit_code=exit_code, **about)

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
    detach: bool = False,
    check: bool = True,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> TrainedRun:
    """Train a recipe on approved data: `train("language", "data.name=posts", "train.steps=200")`.

    `detach` starts a process of its own and returns. `progress` makes what is shown of each step from the
    number of steps. With `check`, a run that does not finish raises what its exit code stands for.
    Raises GateRefused and ConfigError before there is a run.
    """
    loaded = load_recipe(recipe, overrides=overrides)
    ours = controller(say=say, progress=progress)
    if detach:
        return _detached(ours.prepare(loaded, workers=workers))
    folder, code = ours.start(loaded, workers=workers)
    return _ended(folder, code=code, check=check)


@entry
def resume(
    name: str,
    *overrides: str,
    detach: bool = False,
    check: bool = True,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> TrainedRun:
    """Go on with a run from its newest good checkpoint; `train.steps=N` gives it more steps, or fewer.

    `name` may be a place that checkpoints were copied to: `s3://bucket/prefix/RUN`.
    """
    runs = Custody.open().workspace.runs
    folder = RunFolder(fetch_run(name, runs=runs)) if "/" in name else find_run(runs, name)
    if detach:
        return _detached(folder, *overrides)
    code = controller(say=say, progress=progress).resume(folder, overrides=overrides)
    return _ended(folder, code=code, check=check)


def controller(
    *,
    say: Callable[[str], None] = say_on_stderr,
    progress: Callable[[int], StepProgress] | None = None,
) -> Controller:
    """The controller of the user's workspace, with the keys of its folder."""
    house = Custody.open()
    gate = WorkspaceGate(house.workspace, house.providers, house.clock, house.account)
    line = progress or (lambda steps: ProgressLine(steps=steps))
    return Controller(
        house.workspace, gate=gate, launcher=LocalLauncher(), clock=house.clock, say=say, line=line
    )


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
    return [sys.executable, "-m", "rsc", "runs", "resume", folder.id, *overrides]


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

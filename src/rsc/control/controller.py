"""`rsc train` itself: ask the gate, make the run, drive it.

No torch in this process: it starts in a fraction of a second, refuses before any worker exists, and
holds the keys' agent while workers come and go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rsc.clock import Clock
from rsc.cluster.launch.launcher import Launcher
from rsc.cluster.sandbox.wrap import Level
from rsc.config import Workspace
from rsc.control.admission import Gate, admit_all, isolation_of
from rsc.control.checkpoint_copier import open_copies
from rsc.control.drive import Drive
from rsc.control.monitor import ProgressLine, StepProgress
from rsc.control.run_plan import RunPlan, plan_run
from rsc.errors import ConfigError, IntegrityError
from rsc.interrupts import uninterrupted
from rsc.layers import override, resolve, to_toml
from rsc.models.config import TOKENIZER_FILE
from rsc.recipes.recipe import LoadedRecipe, Recipe, recipe_of
from rsc.release.record.run_origin import RunOrigin
from rsc.runs.folder import PREDICTION, RunFolder, RunRecord, RunState


@dataclass(frozen=True)
class Controller:
    workspace: Workspace
    gate: Gate
    launcher: Launcher
    clock: Clock
    say: Callable[[str], None]
    line: Callable[[int], StepProgress] = lambda steps: ProgressLine(steps=steps)
    """What shows the steps, made from their number."""
    expects: Callable[[Recipe], Mapping[str, Any]] | None = None
    """What a run is expected to need: kept with it as data (`prediction.json`)."""

    def start(self, loaded: LoadedRecipe, *, workers: int | None = None) -> tuple[RunFolder, int]:
        """Make a run and drive it to its end; returns it with the exit code.

        Raises GateRefused and ConfigError before any process starts and before the folder is made.
        """
        plan = self._plan(loaded, workers=workers)
        with uninterrupted():
            run = self.make(plan)
        return run, self._drive(run, recipe_of(run), isolation=plan.isolation).to_its_end(plan.opening)

    def prepare(self, loaded: LoadedRecipe, *, workers: int | None = None) -> RunFolder:
        """Make a run for another process to drive. Raises as `start`."""
        plan = self._plan(loaded, workers=workers)
        with uninterrupted():
            return self.make(plan)

    def _plan(self, loaded: LoadedRecipe, *, workers: int | None) -> RunPlan:
        plan = plan_run(loaded, gate=self.gate, runs=self.workspace.runs, workers=workers)
        self.launcher.require(plan.isolation)  # a machine that cannot is told before there is a run
        return plan

    def make(self, plan: RunPlan) -> RunFolder:
        """The run's folder with its papers and the key of its checkpoints."""
        run = RunFolder.create(
            self.workspace.runs,
            recipe=plan.resolved.name,
            steps=plan.recipe.train.steps,
            lineage=plan.lineage,
            clock=self.clock,
        )
        (run.path / "resolved.toml").write_text(to_toml(plan.resolved))
        (run.path / "provenance.json").write_text(json.dumps(plan.resolved.provenance, indent=1))
        if plan.tokenizer is not None:
            (run.path / TOKENIZER_FILE).write_text(plan.tokenizer.text)
        if self.expects is not None:
            expected = json.dumps(self.expects(plan.recipe), indent=1)
            (run.path / PREDICTION).write_text(expected)
        self.gate.record_start(replace(plan.origin, run=run.id))
        self.gate.make_run_key(run)
        return run

    def resume(self, run: RunFolder, *, overrides: Iterable[str] = ()) -> int:
        """Go on with a run at its newest checkpoint. A finished one says so and is left alone.

        `overrides` may say train.steps=N, nothing else: a run keeps its settings. Raises ConfigError.
        """
        record = run.record()
        origin = self.gate.origin(run.id)
        origin.require_papers(record.lineage)
        require_recipe(run, origin)  # it also says where copies go
        recipe = _with_steps(recipe_of(run), record=record, overrides=list(overrides))
        steps = recipe.train.steps
        if record.state is RunState.FINISHED and steps <= record.step:
            open_copies(run, recipe.checkpoint, say=self.say)  # the last copy may have failed
            self.say(f"run {run.id} finished at step {record.step}; nothing is left to do")
            return 0
        admit_all(self.gate, recipe.data, model=recipe.model)
        isolation = isolation_of(self.gate, origin)
        opening = f"resuming, {steps} steps in all"
        if steps != record.steps:
            opening += f" instead of {record.steps}; the learning rate follows the schedule of {steps}"
        return self._drive(run, recipe, isolation=isolation).to_its_end(opening)

    def _drive(self, run: RunFolder, recipe: Recipe, *, isolation: Level) -> Drive:
        return Drive(
            run, recipe, isolation, self.workspace, self.gate, self.launcher, self.clock, self.say, self.line
        )


def require_recipe(run: RunFolder, origin: RunOrigin) -> None:
    """Raises IntegrityError for a recipe that is not the one the run began with: it names the data."""
    if resolve(str(run.path / "resolved.toml")).digest != origin.recipe_sha256:
        raise IntegrityError(
            f"resolved.toml of {run.id} is not the recipe that record {origin.index} of the log names",
            hint="put the file back from a copy, or start a new run with the settings that you want",
            outcome="header",
        )


def _with_steps(recipe: Recipe, *, record: RunRecord, overrides: list[str]) -> Recipe:
    """The recipe with the steps that the run has by now, or is asked to have."""
    other = [each for each in overrides if each.partition("=")[0].strip() != "train.steps"]
    if other:
        raise ConfigError(
            f"a run keeps its settings: {other[0]} cannot change",
            hint=f"train.steps=N can; a new run starts from this one with model.init_from={record.id}",
        )
    asked = override(recipe.train, section="train", overrides=overrides)
    steps = asked.steps if overrides else record.steps
    if overrides and steps < record.step:
        raise ConfigError(
            f"train.steps={steps}, and run {record.id} has done {record.step}",
            hint=f"give at least {record.step}",
        )
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": steps})})

"""`rsc train` itself: ask the gate, make the run, drive it.

No torch in this process: it starts in a fraction of a second, refuses before any worker exists, and
holds the keys' agent while workers come and go.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from rsc.clock import Clock
from rsc.cluster.launch.launcher import Launcher
from rsc.cluster.sandbox.wrap import Level
from rsc.config import Workspace, resolve, to_toml
from rsc.control.admission import Gate, admit_all, isolation_of
from rsc.control.checkpoint_copier import open_copies
from rsc.control.drive import Drive
from rsc.control.run_plan import RunPlan, plan_run
from rsc.errors import IntegrityError
from rsc.interrupts import uninterrupted
from rsc.models.config import TOKENIZER_FILE
from rsc.recipes.recipe import LoadedRecipe, Recipe, recipe_of
from rsc.release.record.run_origin import RunOrigin
from rsc.runs.folder import RunFolder, RunState


@dataclass(frozen=True)
class Controller:
    workspace: Workspace
    gate: Gate
    launcher: Launcher
    clock: Clock
    say: Callable[[str], None]

    def start(self, loaded: LoadedRecipe, *, workers: int | None = None) -> tuple[RunFolder, int]:
        """Make a run and drive it to its end; returns it with the exit code.

        Raises GateRefused and ConfigError before any process starts and before the folder is made.
        """
        plan = plan_run(loaded, gate=self.gate, runs=self.workspace.runs, workers=workers)
        self.launcher.require(plan.isolation)  # a machine that cannot is told before there is a run
        with uninterrupted():
            run = self.make(plan)
        return run, self._drive(run, recipe_of(run), isolation=plan.isolation).to_its_end(plan.opening)

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
        self.gate.record_start(replace(plan.origin, run=run.id))
        self.gate.make_run_key(run)
        return run

    def resume(self, run: RunFolder) -> int:
        """Go on with a run at its newest checkpoint. A finished one says so and is left alone."""
        record = run.record()
        origin = self.gate.origin(run.id)
        origin.require_papers(record.lineage)
        _require_recipe(run, origin)  # it also says where copies go
        recipe = recipe_of(run)
        if record.state is RunState.FINISHED:
            open_copies(run, recipe.checkpoint, say=self.say)  # the last copy may have failed
            self.say(f"run {run.id} finished at step {record.step}; nothing is left to do")
            return 0
        admit_all(self.gate, recipe.data, model=recipe.model)
        isolation = isolation_of(self.gate, origin)
        return self._drive(run, recipe, isolation=isolation).to_its_end(
            f"resuming, {record.steps} steps in all"
        )

    def _drive(self, run: RunFolder, recipe: Recipe, *, isolation: Level) -> Drive:
        return Drive(run, recipe, isolation, self.workspace, self.gate, self.launcher, self.clock, self.say)


def _require_recipe(run: RunFolder, origin: RunOrigin) -> None:
    """Raises IntegrityError for a recipe that is not the one the run began with: it names the data."""
    if resolve(str(run.path / "resolved.toml")).digest != origin.recipe_sha256:
        raise IntegrityError(
            f"resolved.toml of {run.id} is not the recipe that record {origin.index} of the log names",
            hint="put the file back from a copy, or start a new run with the settings that you want",
            outcome="header",
        )

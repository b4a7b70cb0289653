"""`rsc train RECIPE [section.key=value ...]`: train on approved data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.cluster.launch.launcher import LocalLauncher
from rsc.control.controller import Controller
from rsc.control.workspace_gate import WorkspaceGate
from rsc.errors import ConfigError
from rsc.recipes.recipe import load_recipe, recipe_of
from rsc.release.agent.custody import Custody
from rsc.runs.folder import RunFolder


def train(
    recipe: Annotated[str, typer.Argument(help="A name from `rsc recipes ls`, or the path of a .toml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value")] = None,
    nproc: Annotated[int, typer.Option(help="Worker processes; 0 lets the recipe or the machine say.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and count; train nothing.")] = False,
    world_size: Annotated[int, typer.Option(help="Ranks of the job that is dry-run.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a recipe on approved data, or dry-run it at any number of ranks."""
    if dry_run:
        _dry_run(recipe, overrides=["data.name=none", *(overrides or [])], world=world_size, as_json=as_json)
        return
    loaded = load_recipe(recipe, overrides=overrides or [])
    run, code = controller().start(loaded, workers=nproc or None)
    finish(run, code=code, as_json=as_json)


def _dry_run(recipe: str, *, overrides: list[str], world: int, as_json: bool) -> None:
    from rsc.plan.recipe_table import (  # brings torch, which training leaves to workers
        dry_run_recipe,
        table_of,
    )

    loaded = load_recipe(recipe, overrides=overrides)
    run = dry_run_recipe(loaded.recipe, world=world)
    header, rows = table_of(run)
    size = run.num_parameters
    count = f"{size / 1e9:,.1f} B" if size >= 1e9 else f"{size / 1e6:,.1f} M"
    about = f"{count} parameters on {world} ranks, {run.layout.why}\n"
    emit({"recipe": recipe, **run.to_json()}, as_json=as_json, text=about + table(rows, header=header))


def controller() -> Controller:
    """The controller of the user's workspace, with the keys of its folder."""
    house = Custody.open()
    gate = WorkspaceGate(house.workspace, house.providers, house.clock, house.account)
    return Controller(house.workspace, gate=gate, launcher=LocalLauncher(), clock=house.clock, say=say)


def finish(run: RunFolder, *, code: int, as_json: bool) -> None:
    """Print what became of a run, and the next commands; ends the process with the run's exit code."""
    emit(summary(run), as_json=as_json, text="")
    if code == 0:
        next_commands(f"rsc eval {run.id}", *ask(run), f"rsc runs export {run.id}")
    else:  # a run keeps its settings: one that failed by them (2) fails again
        again = [] if code == ConfigError.exit_code else [f"rsc runs resume {run.id}"]
        next_commands(f"rsc runs show {run.id}", *again, f"rsc runs logs {run.id}")
    raise typer.Exit(code)


def ask(run: RunFolder) -> list[str]:
    """The command that asks the model something, where one fits its head."""
    task = recipe_of(run).model.task
    if task.is_language:
        return [f"rsc generate {run.id}"]
    return [f"rsc predict {run.id} FILE"] if task.answers_field else []


def summary(run: RunFolder) -> dict[str, Any]:
    """What `rsc train --json` and the quickstart read of a run."""
    record = run.record()
    return {
        "run": run.id,
        "path": str(run.path),
        "state": record.state,
        "step": record.step,
        "steps": record.steps,
        "loss": record.loss,
        "restarts": record.restarts,
        "resumed_at": record.resumed_at,
        "reason": record.reason,
    }

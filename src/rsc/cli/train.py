"""`rsc train RECIPE [section.key=value ...]`: train on approved data."""

from __future__ import annotations

from typing import Annotated

import typer

from rsc.api import training
from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.recipes.recipe import load_recipe, recipe_of
from rsc.runs.folder import find_run

Detach = Annotated[
    bool, typer.Option("--detach", help="Train in a process of its own, which no terminal takes along.")
]

On = Annotated[str, typer.Option("--on", help="local or slurm; without it what cluster.toml says.")]


def train(
    recipe: Annotated[str, typer.Argument(help="A name from `rsc recipes ls`, or the path of a .toml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value")] = None,
    nproc: Annotated[int, typer.Option(help="Worker processes; 0 lets the recipe or the machine say.")] = 0,
    detach: Detach = False,
    on: On = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and count; train nothing.")] = False,
    world_size: Annotated[int, typer.Option(help="Ranks of the job that is dry-run.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a recipe on approved data, or dry-run it at any number of ranks."""
    if dry_run:
        _dry_run(recipe, overrides=["data.name=none", *(overrides or [])], world=world_size, as_json=as_json)
        return
    done = training.train(
        recipe, *(overrides or []), workers=nproc or None, on=on, detach=detach, check=False, say=say
    )
    finish(done, is_detached=detach, as_json=as_json)


def _dry_run(recipe: str, *, overrides: list[str], world: int, as_json: bool) -> None:
    from rsc.plan.dry_run.recipe_table import (  # brings torch, which training leaves to workers
        dry_run_recipe,
        table_of,
    )
    from rsc.plan.expectation import expect, to_line

    loaded = load_recipe(recipe, overrides=overrides)
    run = dry_run_recipe(loaded.recipe, world=world)
    header, rows = table_of(run)
    size = run.num_parameters
    count = f"{size / 1e9:,.1f} B" if size >= 1e9 else f"{size / 1e6:,.1f} M"
    about = f"{count} parameters on {world} ranks, {run.layout.why}\n"
    expected = expect(loaded.recipe, world=world, workspace=Workspace.from_environment().root)
    expected["memory_bytes"] = max(rank.peak_bytes for rank in run.ranks)  # counted, not estimated
    emit(
        {"recipe": recipe, **run.to_json(), "expected": expected},
        as_json=as_json,
        text=f"{about}{table(rows, header=header)}\n{to_line(expected)}",
    )


def finish(done: training.TrainedRun, *, is_detached: bool, as_json: bool) -> None:
    """Print what became of a run, and the next commands; ends the process with the run's exit code."""
    emit(done.to_json(), as_json=as_json, text="")
    if done.job is not None:
        say(f"run {done.run} is job {done.job}; its script is {done.path}/job.sh")
        next_commands(f"rsc runs logs -f {done.run}", f"rsc explain {done.run}", f"rsc runs stop {done.run}")
    elif is_detached:
        say(f"run {done.run} trains in the background")
        next_commands(f"rsc runs follow {done.run}", f"rsc runs stop {done.run}")
    elif done.exit_code == 0:
        next_commands(f"rsc eval {done.run}", *ask(done.run), f"rsc runs export {done.run}")
    else:  # a run keeps its settings: one that failed by them (2) fails again
        again = [] if done.exit_code == ConfigError.exit_code else [f"rsc runs resume {done.run}"]
        next_commands(f"rsc runs show {done.run}", *again, f"rsc runs logs {done.run}")
    raise typer.Exit(done.exit_code)


def ask(run: str) -> list[str]:
    """The command that asks the model something, where one fits its head."""
    task = recipe_of(find_run(Workspace.from_environment().runs, run)).model.task
    if task.is_language:
        return [f"rsc generate {run}"]
    return [f"rsc predict {run} FILE"] if task.answers_field else []

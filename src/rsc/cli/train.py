"""`rsc train RECIPE [section.key=value ...]`: train on approved data."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.site import Place, Site, read_site
from rsc.config import Workspace
from rsc.control.controller import Controller
from rsc.control.submission import Submission
from rsc.control.workspace_gate import WorkspaceGate
from rsc.errors import ConfigError
from rsc.recipes.recipe import load_recipe, recipe_of
from rsc.release.agent.custody import Custody
from rsc.runs.folder import RunFolder


def train(
    recipe: Annotated[str, typer.Argument(help="A name from `rsc recipes ls`, or the path of a .toml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value")] = None,
    nproc: Annotated[int, typer.Option(help="Worker processes; 0 lets the recipe or the machine say.")] = 0,
    on: Annotated[
        str, typer.Option("--on", help="local or slurm; without it what cluster.toml says, else local.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Build and count; train nothing.")] = False,
    world_size: Annotated[int, typer.Option(help="Ranks of the job that is dry-run.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a recipe on approved data, or dry-run it at any number of ranks."""
    if dry_run:
        _dry_run(recipe, overrides=["data.name=none", *(overrides or [])], world=world_size, as_json=as_json)
        return
    asked = [each for each in overrides or [] if each.strip().startswith("cluster.")]
    loaded = load_recipe(recipe, overrides=[each for each in overrides or [] if each not in asked])
    site = site_of_workspace()
    if place(on, site=site) == "slurm":
        run, job = submission(site.with_overrides(asked)).start(loaded, workers=nproc or None)
        submitted(run, job=job, as_json=as_json)
        return
    if asked:
        raise ConfigError(f"{asked[0]} is for Slurm, and this run starts here", hint="add --on slurm")
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


def site_of_workspace() -> Site:
    return read_site(Workspace.from_environment().root)


def place(on: str, *, site: Site) -> Place:
    """Where a run starts: `--on`, else what the site says; inside a job of Slurm always here."""
    if on not in ("", "slurm", "local"):
        raise ConfigError(f"--on {on}: runs start on slurm or local")
    if on == "" and "SLURM_JOB_ID" in os.environ:
        return "local"
    return "slurm" if on == "slurm" or (on == "" and site.on == "slurm") else "local"


def submission(site: Site) -> Submission:
    return Submission(controller(), site, InstalledSlurm())


def submitted(run: RunFolder, *, job: str, as_json: bool) -> None:
    """Print which job a run is, and the next commands."""
    say(f"run {run.id} is job {job}; its script is {run.path / 'job.sh'}")
    emit({**summary(run), "job": job}, as_json=as_json, text="")
    next_commands(f"rsc runs logs -f {run.id}", f"rsc explain {run.id}", f"rsc runs stop {run.id}")


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

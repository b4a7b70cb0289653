"""`rsc simulate run|ls|cat`: how a cluster will live before it is bought. Never loads torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rsc.cli.output import JsonFlag, emit, next_commands, say, table

if TYPE_CHECKING:
    from rsc.plan.sim.replicate import SimulatedRun


class RunUnlessNamed(TyperGroup):
    """`rsc simulate rsc-1` is `rsc simulate run rsc-1`: what is no command is a scenario."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` in front of a scenario's name."""
        named = args and (args[0] in self.commands or args[0].startswith("-"))
        return super().parse_args(ctx, args if named or not args else ["run", *args])


app = typer.Typer(
    cls=RunUnlessNamed, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

ScenarioName = Annotated[str, typer.Argument(help="A scenario of `rsc simulate ls`, or a .toml file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as repair.spares=16.")]
Runs = Annotated[int, typer.Option(help="Seeds; several give confidence intervals.", min=1, max=1000)]
Seed = Annotated[int, typer.Option(help="First seed.", min=0)]
Cores = Annotated[int, typer.Option(help="Processes; 0 = all cores. The figures stay the same.", min=0)]
Save = Annotated[Path | None, typer.Option(help="Folder for finished runs, from which a sweep goes on.")]


@app.command()
def run(
    scenario: ScenarioName,
    overrides: Overrides = None,
    runs: Runs = 1,
    seed: Seed = 0,
    cores: Cores = 0,
    save: Save = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate a scenario: waiting, goodput, failures, losses by cause, energy."""
    from rsc.plan.sim import report
    from rsc.plan.sim.replicate import combine, run_all
    from rsc.plan.sim.scenario import load_scenario

    _, values = load_scenario(scenario, overrides=tuple(overrides or ()))
    tasks = _tasks(values, runs=runs, seed=seed)
    done = run_all(tasks, cores=_cores(cores), folder=_folder(save), told=_progress)
    result = combine([done[task] for task in tasks])
    parts = [
        table(report.headline(result), header=("figure", "value", "meaning")),
        table(report.losses(result), header=("lost by", "GPU-hours", "share")),
        table(report.sizes(result), header=report.SIZES_HEADER),
    ]
    record = {"scenario": values.name, "seed": seed, "runs": runs, "settings": values.values}
    emit({**record, "figures": result}, as_json=as_json, text="\n\n".join(parts))


def _tasks(values: Any, *, runs: int, seed: int) -> list[SimulatedRun]:
    from rsc.plan.sim.replicate import SimulatedRun

    return [SimulatedRun(values, number) for number in range(seed, seed + runs)]


def _cores(asked: int) -> int:
    return asked or len(os.sched_getaffinity(0))


def _folder(save: Path | None) -> Path | None:
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    return save


def _progress(done: int, of: int) -> None:
    if of > 1:
        bar = "#" * (20 * done // of)
        say(f"[{bar.ljust(20, '.')}] {done} of {of} runs")


@app.command()
def ls(as_json: JsonFlag = False) -> None:
    """List the scenarios."""
    from rsc.plan.sim.scenario import load_scenario, scenario_names

    rows = []
    for name in scenario_names():
        scenario, _ = load_scenario(name)
        rows.append(
            {"name": name, "days": scenario.days, "nodes": scenario.cluster.nodes, "gpus": scenario.gpus}
        )
    cells = [[row["name"], row["days"], row["nodes"], row["gpus"]] for row in rows]
    emit(
        {"scenarios": rows}, as_json=as_json, text=table(cells, header=("scenario", "days", "nodes", "GPUs"))
    )
    if not as_json:
        next_commands("rsc simulate run laptop-lab --runs 4")


@app.command()
def cat(scenario: ScenarioName, overrides: Overrides = None, as_json: JsonFlag = False) -> None:
    """Print a scenario with every setting and where it came from."""
    from rsc.layers import to_toml
    from rsc.plan.sim.scenario import load_scenario

    _, values = load_scenario(scenario, overrides=tuple(overrides or ()))
    emit({"name": values.name, "settings": values.values}, as_json=as_json, text=to_toml(values).rstrip())

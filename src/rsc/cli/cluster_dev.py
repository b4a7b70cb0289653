"""`rsc cluster dev up|down|run`: a private, real Slurm on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.cluster.dev.cluster import DevCluster
from rsc.cluster.dev.plan import ClusterPlan, default_folder
from rsc.cluster.dev.processes import end_all, of_cluster

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Option(help="Of the cluster, where you want several.")]


@app.command("up")
def up(
    nodes: Annotated[int, typer.Option(help="Nodes: a slurmd each.")] = 4,
    gpus: Annotated[int, typer.Option(help="Fake GPUs of each node; jobs get their numbers.")] = 4,
    accounting: Annotated[bool, typer.Option("--accounting", help="With slurmdbd: sacct, QOS.")] = False,
    namespaces: Annotated[
        bool, typer.Option("--namespaces", help="A network and a host name of its own for each node.")
    ] = False,
    name: Name = "dev",
    as_json: JsonFlag = False,
) -> None:
    """Start a private Slurm as you, without root, and wait until its nodes are idle."""
    plan = ClusterPlan(
        default_folder(name), nodes=nodes, gpus=gpus, accounting=accounting, namespaces=namespaces
    )
    cluster = DevCluster.up(plan)
    text = f"{nodes} nodes are idle; files and logs in {plan.folder}"
    emit({"folder": str(plan.folder), "environment": cluster.environment}, as_json=as_json, text=text)
    named = "" if name == "dev" else f" --name {name}"
    use = f"rsc cluster dev run{named} -- sinfo"
    exported = [] if namespaces else [f"export SLURM_CONF={plan.conf}"]  # a shell is not in their network
    next_commands(*exported, use, f"rsc cluster dev down{named}")


@app.command("down")
def down(name: Name = "dev", as_json: JsonFlag = False) -> None:
    """End all its processes and jobs, and remove its folder; also what a killed `up` left."""
    removed = _removed(name)
    emit({"removed": list(map(str, removed))}, as_json=as_json, text="")


def _removed(name: str) -> list[Path]:
    folder = default_folder(name)
    left = sorted(folder.parent.glob(f"{folder.name}.[0-9]*"))  # `up` was killed before it had its name
    if not folder.exists() and left:
        for path in left:
            DevCluster(ClusterPlan(path)).down()
        say(f"removed {', '.join(map(str, left))}, which an `up` that was killed left")
        return left
    if not folder.exists():
        end_all(lambda: of_cluster(folder))
        say(f"there is no cluster in {folder}")
        return []
    DevCluster.there(folder).down()
    say(f"ended the cluster in {folder}")
    return [folder]


@app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="For example: sinfo, or: srun -N4 hostname")],
    name: Name = "dev",
) -> None:
    """Run a command that finds this cluster, in its network where it has one."""
    cluster = DevCluster.there(default_folder(name))
    argv = cluster.command(command)
    os.execvpe(argv[0], argv, {**os.environ, **cluster.environment})

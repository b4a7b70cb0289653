"""`rsc cluster init|status|dev`: the scheduler that runs start on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from rsc.cli import cluster_dev
from rsc.cli.output import JsonFlag, emit, next_commands, say, table, write_new
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.duration import format_duration
from rsc.cluster.slurm.facts import Facts, Partition, ask_facts
from rsc.cluster.slurm.holders import holders
from rsc.cluster.slurm.site import FILE
from rsc.cluster.slurm.site_text import site_text
from rsc.config import Workspace

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cluster_dev.app, name="dev", help="a private Slurm on this machine, for tests and trying")


@app.command("init")
def init(
    show: Annotated[bool, typer.Option("--print", help="Print it instead of writing it.")] = False,
) -> None:
    """Ask Slurm what it has and write cluster.toml, which `rsc train` reads."""
    facts = ask_facts(InstalledSlurm())
    text = site_text(facts)
    if show:
        print(text, end="")
        return
    path = Workspace.from_environment().root / FILE
    write_new(path, text.encode(), mode=0o600)
    say(f"wrote {path}")
    for line in warnings(facts):
        say(line)
    next_commands("rsc cluster status", "rsc train RECIPE")


def warnings(facts: Facts) -> list[str]:
    """What of the site makes runs wait or stand still, with who can change it."""
    told = []
    if facts.requeue_wait_s > 60:
        told.append(
            f"a requeued run waits {facts.requeue_wait_s} s here: the administrator can lower it "
            "with cred_expire in AuthInfo of slurm.conf"
        )
    if "nohold_on_prolog_fail" not in facts.config.get("SchedulerParameters", ""):
        told.append(
            "a run whose start fails on a bad node is held here until `rsc runs resume`: the administrator "
            "can set SchedulerParameters=nohold_on_prolog_fail"
        )
    if facts.config.get("JobRequeue") == "0":
        told.append("jobs are not requeued here unless they ask for it; those of RSC do")
    return told


@app.command("status")
def status(as_json: JsonFlag = False) -> None:
    """Print what is free, used and out of service by partition, and who holds what."""
    slurm = InstalledSlurm()
    facts = ask_facts(slurm)
    held = holders(slurm)
    parts = [_row(each) for each in facts.partitions.values()]
    every = [node for each in facts.partitions.values() for node in each.nodes if node.is_out]
    out = sorted({(node.name, node.state, node.reason) for node in every})
    keys = ("partition", "idle", "used", "out", "cpus", "gpus", "longest")
    lines = [table([[row[key] for key in keys] for row in parts], header=keys)]
    if held:
        columns = ("user", "partition", "jobs", "nodes", "cpus", "gpus")
        lines += ["", table([[getattr(each, key) for key in columns] for each in held], header=columns)]
    if out:
        lines += ["", table(out, header=("node", "state", "reason"))]
    result = {
        "partitions": parts,
        "holders": [asdict(each) for each in held],
        "out": [{"node": name, "state": state, "reason": reason} for name, state, reason in out],
    }
    emit(result, as_json=as_json, text="\n".join(lines))


def _row(partition: Partition) -> dict[str, Any]:
    nodes = partition.nodes
    out = [node for node in nodes if node.is_out]
    idle = [node for node in nodes if not node.is_out and node.state.startswith("idle")]
    return {
        "partition": partition.name + ("*" if partition.is_default else ""),
        "idle": len(idle),
        "used": len(nodes) - len(idle) - len(out),
        "out": len(out),
        "cpus": sum(node.cpus for node in nodes),
        "gpus": sum(node.gpus for node in nodes),
        "longest": "-" if partition.max_time_s is None else format_duration(partition.max_time_s),
    }

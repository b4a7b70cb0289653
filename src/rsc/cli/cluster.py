"""`rsc cluster init|status|dev`: the scheduler that runs start on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rsc.api import slurm_jobs
from rsc.cli import cluster_dev
from rsc.cli.output import JsonFlag, emit, next_commands, say, table, write_new
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.facts import Facts, ask_facts
from rsc.cluster.slurm.site import FILE
from rsc.cluster.slurm.site_text import site_text
from rsc.config import Workspace

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cluster_dev.app, name="dev", help="a private Slurm on this machine, for tests and trying")


@app.command("init")
def init(
    show: Annotated[bool, typer.Option("--print", help="Print it instead of writing it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask Slurm what it has and write cluster.toml, which `rsc train` reads."""
    facts = ask_facts(InstalledSlurm())
    text = site_text(facts)
    told: dict[str, Any] = {"toml": text, "warnings": warnings(facts)}
    if show:
        emit({**told, "path": None}, as_json=as_json, text=text.removesuffix("\n"))
        for line in warnings(facts):
            say(line)
        return
    path = Workspace.from_environment().root / FILE
    write_new(path, text.encode(), mode=0o600)
    emit({**told, "path": str(path)}, as_json=as_json, text="")
    say(f"wrote {path}")
    for line in told["warnings"]:
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
    found = slurm_jobs.cluster_status()
    keys = ("partition", "idle", "used", "out", "cpus", "gpus", "longest")
    lines = [table([[row[key] for key in keys] for row in found.partitions], header=keys)]
    if found.holders:
        columns = ("user", "partition", "jobs", "nodes", "cpus", "gpus")
        rows = [[each[key] for key in columns] for each in found.holders]
        lines += ["", table(rows, header=columns)]
    if found.out:
        lines += ["", table([tuple(each.values()) for each in found.out], header=("node", "state", "reason"))]
    emit(found.to_json(), as_json=as_json, text="\n".join(lines))

"""`rsc cluster ...`: the machine or the scheduler that runs start on."""

from __future__ import annotations

import typer

from rsc.cli import cluster_dev

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cluster_dev.app, name="dev", help="a private Slurm on this machine, for tests and trying")

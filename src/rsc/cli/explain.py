"""`rsc explain RUN|JOB`: why it waits, runs or ended, with what speaks for it."""

from __future__ import annotations

from typing import Annotated

import typer

from rsc.api import slurm_jobs
from rsc.cli.output import JsonFlag, emit


def explain(
    run: Annotated[
        str, typer.Argument(help="Id of a run, a unique part of it, `last`, or the number of a job.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Say why a run or a job waits, or how it ended."""
    told = slurm_jobs.explain(run)
    emit(told.to_json(), as_json=as_json, text="\n".join(told.lines))

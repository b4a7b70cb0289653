"""The batch script of a run: text that a person can read, edit and submit again. Pure.

The controller of the run is a child of the script, not a step of srun: srun ends its step as soon as it hears
SIGTERM itself, before a checkpoint is written. Slurm sends SIGTERM to everything when a job is cancelled,
preempted or at its limit, and SIGUSR1 to the shell before the limit, which passes it on. Both mean: write a
checkpoint and leave with 75.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsc.cluster.slurm.site import Site
from rsc.errors import ConfigError

LOG = "slurm-%j.log"

_BODY = """\
# SIGUSR1 comes {warn_s} s before the time limit and is passed on: the run checkpoints and ends with 75.
# SIGTERM (cancelled, preempted, at the limit) reaches the run without this shell, which waits for it.
trap 'kill -USR1 "$controller"' USR1
trap : TERM
{command} &
controller=$!
while :; do
    wait "$controller"
    code=$?
    kill -0 "$controller" 2>/dev/null || break
done

# 75: checkpointed, start again. Above 130: killed from outside; `rsc runs resume` stops where that repeats.
{about_4}# A job that was cancelled is not started again, one that Slurm requeues already need not be.
state=$(squeue -h -j "$SLURM_JOB_ID" -o '%T %r')
if {is_again}; then
    case $state in
    RUNNING* | *TimeLimit) scontrol requeue "$SLURM_JOB_ID" ;;
    esac
fi
exit "$code"
"""


@dataclass(frozen=True)
class BatchJob:
    """What a script is made of."""

    run: str
    folder: Path
    """Of the run; on every node at the same path."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    site: Site
    nodes: int = 1
    is_expedited: bool = False
    """Whether this Slurm takes a requeued job first (25.11 and newer, where the site allows it)."""


def render(job: BatchJob) -> str:
    """Raises ConfigError for a path that Slurm would read as something else."""
    asked = job.site.slurm
    parts = [
        "#!/bin/bash",
        f"# Run {_one_line(job.run)}. Submit it again with: rsc runs resume {_one_line(job.run)}",
        *(f"#SBATCH {option}" for option in options(job)),
        "",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(job.environment.items())),
        *(f"module load {shlex.quote(name)}" for name in job.site.environment.modules),
        *job.site.environment.setup,
        "",
        _BODY.format(warn_s=asked.warn_s, command=shlex.join(job.command), **_again(job)),
    ]
    return "\n".join(parts)


def _again(job: BatchJob) -> dict[str, str]:
    """After which codes the script asks for a new start. A run of several nodes may have lost some."""
    if job.nodes == 1:
        return {"about_4": "", "is_again": '[ "$code" -eq 75 ] || [ "$code" -gt 130 ]'}
    return {
        "about_4": "# 4: too few of its nodes are left, or something of theirs.\n",
        "is_again": '[ "$code" -eq 75 ] || [ "$code" -eq 4 ] || [ "$code" -gt 130 ]',
    }


def options(job: BatchJob) -> Iterator[str]:
    """Of sbatch."""
    asked = job.site.slurm
    yield f"--job-name={_quoted(job.run)}"
    yield f"--chdir={_quoted(_plain_path(job.folder))}"
    yield f"--output={LOG}"
    yield "--open-mode=append"
    yield "--export=NIL  # else slurmctld keeps the environment of whoever submits, secrets too"
    yield "--requeue=expedite" if job.is_expedited else "--requeue"
    yield f"--signal=B:USR1@{asked.warn_s}"
    yield f"--nodes={job.nodes}"
    if job.nodes > 1:
        yield "--no-kill  # a lost node is the run's to replace"
    yield "--ntasks-per-node=1"
    if asked.gpus_per_node:
        kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
        yield f"--gpus-per-node={kind}{asked.gpus_per_node}"
    if asked.cpus_per_node:
        yield f"--cpus-per-task={asked.cpus_per_node}"
    named = {
        "mem": asked.memory,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "time": asked.time,
        "licenses": asked.licenses,
        "constraint": asked.constraint,
        "reservation": asked.reservation,
        "exclude": asked.exclude,
        "switches": str(asked.switches or ""),
        "segment": str(asked.segment or ""),
    }
    yield from (f"--{name}={_quoted(value)}" for name, value in named.items() if value)


def _quoted(text: str) -> str:
    """As sbatch reads its lines: blanks and `#` end a value but between quotes."""
    if all(letter.isalnum() or letter in "_.,:+@/=-" for letter in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain_path(path: Path) -> str:
    text = str(path)
    if "%" in text or "\\" in text or any(not letter.isprintable() for letter in text):
        raise ConfigError(
            f"Slurm cannot write into {text!r}: it replaces % and \\ in paths and takes no control letters",
            hint="set RSC_HOME to another folder, or give the recipe's file another name",
        )
    return text


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)

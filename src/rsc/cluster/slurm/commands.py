"""The wall to Slurm: its own commands, asked for text that a program can read.

Each question is one call for all jobs or all nodes, never one a job: the users of a site share a slurmctld.
Columns are asked for by name (`-o`), the same from Slurm 22.05 on; JSON of these commands differs in
each version. Whatever a user may have named (jobs, comments) is the last column.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rsc.errors import ConfigError, ResourceError

_PATIENCE_S = 60.0  # slurmctld's own time-out for messages is 10 s, and its commands try several times


class SlurmCommands(Protocol):
    def ask(self, *argv: str) -> str:
        """What the command prints. Raises ConfigError where it is not installed, ResourceError with its words
        where it fails."""
        ...


@dataclass(frozen=True)
class InstalledSlurm:
    """Of the machine that this runs on."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def ask(self, *argv: str) -> str:
        if shutil.which(argv[0], path=self.environment.get("PATH")) is None:
            raise ConfigError(
                f"there is no command {argv[0]} on this machine",
                hint="run it where Slurm's commands are, for example on the login node; "
                "`rsc cluster dev up` starts a Slurm to try",
            )
        plain = {**self.environment, "SLURM_TIME_FORMAT": "standard", "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                argv, env=plain, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            raise ResourceError(
                f"{argv[0]} did not answer in {_PATIENCE_S:.0f} s",
                hint="is slurmctld up? see `scontrol ping`",
            ) from None
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise ResourceError(f"{argv[0]} failed: {words}", hint=_hint(words))
        return done.stdout.decode(errors="replace")


def _hint(words: str) -> str | None:
    if "contact slurm controller" in words or "configuration source" in words:
        return "is slurmctld up, and does SLURM_CONF name this cluster's slurm.conf? see `scontrol ping`"
    return None


def rows(text: str, *, columns: Sequence[str]) -> list[dict[str, str]]:
    """Lines with `|` between columns. The last column may hold `|` itself; a line with fewer is left out."""
    found = []
    for line in text.split("\n"):
        cells = line.rstrip("\r").split("|", len(columns) - 1)
        if len(cells) == len(columns):
            found.append(dict(zip(columns, (cell.strip() for cell in cells), strict=True)))
    return found


def pairs(line: str) -> dict[str, str]:
    """One line of `scontrol show ... -o`: `Name=value` between blanks; a value with blanks is cut there."""
    return dict(part.split("=", 1) for part in line.split() if "=" in part)

"""Runs `rsc` commands the way a reader would, shows each before it runs, and keeps the time."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rsc.cli.output import JSON_FILE, say
from rsc.config import Workspace
from rsc.errors import RscError


@dataclass(frozen=True)
class Ran:
    exit_code: int
    result: dict[str, Any]
    """The JSON of the command; empty for an action that has none."""
    seconds: float


class Guide:
    """A tour through one workspace, in stages with a title each."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._started_s = time.monotonic()
        self._stages: list[tuple[str, float, float]] = []

    def tell(self, title: str) -> None:
        """Begin the next stage."""
        self._stages.append((title, time.monotonic(), _cpu_seconds()))
        say(f"\n== {title}")

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started_s

    def stages(self) -> list[dict[str, Any]]:
        """Title, seconds and CPU seconds of each stage until now."""
        marks = [*self._stages, ("", time.monotonic(), _cpu_seconds())]
        return [
            {"stage": title, "seconds": round(end_s - start_s, 1), "cpu_seconds": round(end_cpu_s - cpu_s, 1)}
            for (title, start_s, cpu_s), (_, end_s, end_cpu_s) in pairwise(marks)
        ]

    def run(self, *arguments: str, expect: int = 0) -> Ran:
        """Run one command in the workspace, its text on stderr. Raises RscError for another exit code."""
        say(f"$ rsc {shlex.join(arguments)}")
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "result.json"
            done = subprocess.run(
                [sys.executable, "-m", "rsc", *arguments],
                env={**os.environ, "RSC_HOME": str(self.workspace.root), JSON_FILE: str(document)},
                cwd=self.workspace.root,
                stdout=sys.stderr,
            )
            if done.returncode != expect:
                raise RscError(
                    f"`rsc {shlex.join(arguments)}` ended with exit code {done.returncode}, not {expect}",
                    hint=f"its output is above; the workspace is {self.workspace.root}",
                )
            result = json.loads(document.read_text()) if document.exists() else {}
            return Ran(done.returncode, result, seconds=time.monotonic() - started_s)


def _cpu_seconds() -> float:
    """Of this process and all commands that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

"""Where the processes of a job start: the wall between the controller and a machine, or a scheduler.

A node gets one command, its supervisor, inside the strongest sandbox that the policy wants and the machine
gives. `LocalLauncher` starts it as a child on this machine.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rsc.cluster.launch.environment import HUGE_PAGES, PATIENT_THREADS
from rsc.cluster.sandbox.wrap import METHODS, Level, Method, Wrapped, wrap


@dataclass(frozen=True)
class NodeCommand:
    """What a node runs, and what of the machine it may see."""

    argv: tuple[str, ...]
    level: Level
    folder: Path
    """Where it starts; read-only but for `writable`."""
    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]


class Launcher(Protocol):
    def require(self, level: Level) -> None:
        """Raises IsolationRefused where the job's nodes cannot isolate as a policy requires it."""
        ...

    def prepare(self, command: NodeCommand) -> Wrapped:
        """The command inside its sandbox, and how strong that is. Raises IsolationRefused."""
        ...

    def start(self, wrapped: Wrapped) -> subprocess.Popen[str]:
        """Start it: stdin takes wishes (monitor.py), stdout gives JSON lines, stderr words."""
        ...


@dataclass(frozen=True)
class LocalLauncher:
    """One node, this one."""

    methods: tuple[Method, ...] = METHODS
    """Ways to build a sandbox, best first."""

    def require(self, level: Level) -> None:
        if level == "required":
            wrap(["true"], level=level, methods=self.methods)

    def prepare(self, command: NodeCommand) -> Wrapped:
        return wrap(
            command.argv,
            level=command.level,
            writable=command.writable,
            readable=command.readable,
            folder=command.folder,
            hidden=command.hidden,
            methods=self.methods,
        )

    def start(self, wrapped: Wrapped) -> subprocess.Popen[str]:
        return subprocess.Popen(
            wrapped.argv,
            env={**HUGE_PAGES, **PATIENT_THREADS, **wrapped.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # never the user's terminal: who holds that reads what is typed there
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

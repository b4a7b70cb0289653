"""Where the processes of a job start: the wall between the controller and a machine, or a scheduler.

A node gets one command, its supervisor, inside the strongest sandbox that the policy wants and the machine
gives. `LocalLauncher` starts it as a child on this machine.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rsc.cluster.launch.environment import HUGE_PAGES, PATIENT_THREADS
from rsc.cluster.launch.node_processes import JobNode
from rsc.cluster.sandbox.wrap import METHODS, Level, Method, Wrapped, wrap, wrap_with_network
from rsc.errors import ConfigError


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
    needs_network: bool = False
    """Whether its ranks have peers on other nodes."""


class Launcher(Protocol):
    def nodes(self, count: int) -> Sequence[JobNode]:
        """The nodes of a job of several. Raises ConfigError where there are fewer."""
        ...

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
    """This machine; a job of several nodes has all of them here, unless others are given."""

    methods: tuple[Method, ...] = METHODS
    """Ways to build a sandbox, best first."""
    others: tuple[JobNode, ...] = ()

    def nodes(self, count: int) -> Sequence[JobNode]:
        there = self.others or tuple(JobNode(f"node{number}") for number in range(count))
        if len(there) < count:
            raise ConfigError(
                f"the job wants {count} nodes and there are {len(there)}",
                hint="lower cluster.nodes or cluster.spares",
            )
        return there[:count]

    def require(self, level: Level) -> None:
        if level == "required":
            wrap(["true"], level=level, methods=self.methods)

    def prepare(self, command: NodeCommand) -> Wrapped:
        if command.needs_network:
            return wrap_with_network(command.argv, level=command.level, folder=command.folder)
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

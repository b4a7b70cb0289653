"""What happens to clusters, on purpose: for tests of whatever runs on Slurm.

kill_node     power loss: its daemon, jobs and all they started end at once
cut_network   a node is there and nobody reaches it; for good, or until `join_network`   (--namespaces)
slow_link     a node hears at most so many bits a second, until `fast_link`              (--namespaces)
fill_disk     the folder `shared` has no byte left, until `free_disk`                     (--namespaces)
bad_prolog    Slurm's prolog fails on a node, until `good_prolog`
slow_node     the jobs of a node get a share of the time only, until `fast_node`

Those marked need `DevCluster` with `namespaces=True`, and raise ConfigError without.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rsc.cluster.dev.database import RunCommand
from rsc.cluster.dev.namespaces import Namespaces
from rsc.cluster.dev.plan import ClusterPlan
from rsc.cluster.dev.processes import MARK, Process, end, end_all, of_node
from rsc.errors import ConfigError


@dataclass(frozen=True)
class Faults:
    plan: ClusterPlan
    run: RunCommand
    start_node: Callable[[str], None]

    def kill_node(self, name: str, *, tell: bool = False) -> None:
        """`tell`: Slurm hears of it, as from an agent that watches nodes; else after SlurmdTimeout."""
        self._require_node(name)
        if self.plan.namespaces:
            Namespaces(self.plan).stop_node(name)
        end_all(lambda: of_node(self.plan.folder, name))
        if tell:
            self.run(["scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=power lost"])

    def restore_node(self, name: str) -> None:
        """Power is back."""
        self._require_node(name)
        self.start_node(name)

    def cut_network(self, name: str) -> None:
        self._networks(name).link(name, "down")

    def join_network(self, name: str) -> None:
        self._networks(name).link(name, "up")

    def slow_link(self, name: str, *, kbit_per_s: int = 1000) -> None:
        shape = ["tbf", "rate", f"{kbit_per_s}kbit", "burst", "16kb", "latency", "400ms"]
        self._networks(name).shape(name, *shape)

    def fast_link(self, name: str) -> None:
        self._networks(name).shape(name)

    def fill_disk(self) -> int:
        """Returns the bytes that were left."""
        spaces = self._networks(self.plan.names[0])
        filler = self._filler
        fill = f"dd if=/dev/zero of={filler} bs=64k 2>/dev/null; stat -c %s {filler}"
        done = subprocess.run(spaces.enter(["sh", "-c", fill]), capture_output=True, text=True, check=True)
        return int(done.stdout)

    def free_disk(self) -> None:
        spaces = self._networks(self.plan.names[0])
        subprocess.run(spaces.enter(["rm", "-f", str(self._filler)]), check=True)

    def bad_prolog(self, name: str) -> None:
        self._require_node(name)
        self._prolog_mark(name).touch()

    def good_prolog(self, name: str) -> None:
        """Also takes the node back, which Slurm has drained."""
        self._prolog_mark(name).unlink(missing_ok=True)
        self.run(["scontrol", "update", f"NodeName={name}", "State=RESUME"], check=False)

    def slow_node(self, name: str, *, share: float = 0.2) -> None:
        """Every process of its jobs stands still for 1 - `share` of each tenth of a second."""
        self._require_node(name)
        if not 0 < share < 1:
            raise ConfigError(f"share is {share}; it lies between 0 and 1")
        code = (
            f"from rsc.cluster.dev.slow_down import main; main({str(self.plan.folder)!r}, {name!r}, {share})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, MARK: str(self.plan.folder)},
            start_new_session=True,
        )
        self._slow_file(name).write_text(str(process.pid))

    def fast_node(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self._slow_file(name).read_text()), signal.SIGKILL)
        self._slow_file(name).unlink(missing_ok=True)
        end(self._jobs(name), number=signal.SIGCONT)

    def _jobs(self, name: str) -> list[Process]:
        return jobs_of(self.plan.folder, name)

    def _networks(self, name: str) -> Namespaces:
        self._require_node(name)
        if not self.plan.namespaces:
            raise ConfigError(
                "this fault needs nodes with a network and disk of their own",
                hint="start the cluster with --namespaces",
            )
        return Namespaces(self.plan)

    def _require_node(self, name: str) -> None:
        if name not in self.plan.names:
            raise ConfigError(f"there is no node {name!r}", hint=f"nodes: {', '.join(self.plan.names)}")

    @property
    def _filler(self) -> Path:
        return self.plan.shared / ".filler"

    def _prolog_mark(self, name: str) -> Path:
        return self.plan.faults / f"prolog-{name}"

    def _slow_file(self, name: str) -> Path:
        return self.plan.faults / f"slow-{name}"


def jobs_of(folder: Path, name: str) -> list[Process]:
    """What runs on a node but Slurm's own daemons."""
    every = of_node(folder, name)
    return [each for each in every if not each.command.startswith(("slurm", "unshare", "bash -c hostname"))]

"""What a private cluster shall have, and where its files lie. Pure: nothing is started here."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError

_MARK = "rsc-dev-cluster.json"
"""Lies in the folder from its first moment on: `down` removes no folder without it."""

FAKE_GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx")
"""Slurm shows a job only GPUs whose file is a device; these are on every Linux and harm nobody."""

MOST_NODES = 64  # daemons of some MiB each; namespaces have one network of 200 addresses
NETWORK = "10.77.0"
"""Of the namespaces: it exists inside the cluster alone."""
CONTROLLER_IP = f"{NETWORK}.1"


@dataclass(frozen=True)
class ClusterPlan:
    """`rsc cluster dev up`, in values."""

    folder: Path
    nodes: int = 4
    gpus: int = 4
    """Fake ones of each node: a job gets their numbers, nothing computes on them."""
    cpus: int = 8
    """Of each node; more than the machine has is fine."""
    memory_mib: int = 4000
    accounting: bool = False
    """With slurmdbd on a private MariaDB: sacct, QOS and fair share."""
    namespaces: bool = False
    """Each node has a network, processes and a host name of its own."""
    ports: tuple[int, ...] = ()
    """slurmctld, slurmdbd, then a port of each node. Chosen when it is started."""

    @property
    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def mark(self) -> Path:
        return self.folder / _MARK

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge.sock"

    @property
    def faults(self) -> Path:
        """Files here are faults that scripts of the cluster look for (faults.py)."""
        return self.folder / "faults"

    @property
    def shared(self) -> Path:
        """A folder that every node sees. With namespaces it is a small disk, which can be filled."""
        return self.folder / "shared"

    def address(self, name: str) -> str:
        return f"{NETWORK}.{10 + int(name[1:])}" if self.namespaces else "127.0.0.1"

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> ClusterPlan:
        """The plan of a cluster that is there. Raises ConfigError where there is none."""
        try:
            values: dict[str, Any] = json.loads((folder / _MARK).read_text())
            return cls(**{**values, "folder": folder, "ports": tuple(values["ports"])})
        except (OSError, ValueError, TypeError, LookupError):
            raise ConfigError(
                f"there is no development cluster in {folder}", hint="start one with `rsc cluster dev up`"
            ) from None


def default_folder(name: str = "dev") -> Path:
    """Of this user's cluster with that name: short, since paths of sockets have 107 bytes at most."""
    return Path(tempfile.gettempdir()) / f"rsc-cluster-{os.getuid()}-{name}"


def check(plan: ClusterPlan) -> None:
    """Raises ConfigError for a cluster that cannot be."""
    limits = [("nodes", plan.nodes, 1, MOST_NODES), ("gpus", plan.gpus, 0, len(FAKE_GPUS)),
              ("cpus", plan.cpus, 1, 1024), ("memory_mib", plan.memory_mib, 100, 1 << 22)]  # fmt: skip
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise ConfigError(f"{name} is {value}; a development cluster has {least} to {most}")
    if len(str(plan.folder / "spool" / "n64" / "n64_12345678.4294967291")) > 107:
        raise ConfigError(
            f"{plan.folder} is too long a path: Slurm makes sockets below it, whose paths have 107 bytes",
            hint="choose a shorter --folder",
        )
    if any(letter in str(plan.folder) for letter in " \t\n\"'#\\,%()[]"):
        raise ConfigError(f"the path {str(plan.folder)!r} has characters that slurm.conf cannot hold")


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that nobody listens on now, all different."""
    taken = [socket.socket() for _ in range(count)]
    try:
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return tuple(int(each.getsockname()[1]) for each in taken)
    finally:
        for each in taken:
            each.close()

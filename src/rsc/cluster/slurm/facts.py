"""What a cluster has: partitions, nodes and licences, as Slurm says them."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from rsc.cluster.slurm.commands import SlurmCommands, pairs, rows
from rsc.cluster.slurm.duration import parse_duration_s
from rsc.errors import ConfigError, ResourceError

_OUT = ("down", "drain", "fail", "unknown", "maint", "not_responding", "inval", "power", "reboot")
_GPUS = re.compile(r"(?:^|,)gpu(?::(?P<type>[^:,()]+?))?:(?P<count>[0-9]+)", re.ASCII)


@dataclass(frozen=True)
class Node:
    name: str
    state: str
    """As Slurm spells it: `idle`, `mixed`, `drained`, `down*`."""
    cpus: int
    memory_mib: int
    gpus: int
    gpu_types: tuple[str, ...]
    partition: str
    cpus_used: int
    reason: str
    """Why it is out, in the words of who took it out; empty where it is not."""

    @property
    def is_out(self) -> bool:
        """Whether nothing new starts there."""
        return self.state.rstrip("*~#!%$@^-+").startswith(_OUT) or self.state.endswith("*")


@dataclass(frozen=True)
class Partition:
    name: str
    is_up: bool
    is_default: bool
    max_time_s: int | None
    max_nodes: int | None
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Facts:
    version: str
    partitions: dict[str, Partition]
    licenses: dict[str, int]
    config: dict[str, str] = field(default_factory=dict)
    """Of `scontrol show config`."""

    @property
    def default_partition(self) -> str:
        return next((each.name for each in self.partitions.values() if each.is_default), "")

    @property
    def has_accounting(self) -> bool:
        return self.config.get("AccountingStorageType", "").endswith("slurmdbd")

    @property
    def requeue_wait_s(self) -> int:
        """How long a requeued job waits at least: until credentials of its first start have run out."""
        found = re.search(r"cred_expire=([0-9]+)", self.config.get("AuthInfo", ""))
        return int(found[1]) + 1 if found and int(found[1]) >= 5 else 121


def ask_facts(slurm: SlurmCommands) -> Facts:
    """Four calls, whatever the size of the cluster. Raises as `SlurmCommands.ask`."""
    nodes = parse_nodes(slurm.ask("sinfo", "-a", "-h", "-N", "-o", "%N|%T|%c|%m|%G|%P|%C|%E"))
    partitions = parse_partitions(slurm.ask("scontrol", "-a", "-o", "show", "partition"), nodes=nodes)
    config = parse_config(slurm.ask("scontrol", "show", "config"))
    licenses: dict[str, int] = {}
    with contextlib.suppress(ResourceError):  # "No licenses configured" is an error in some versions
        licenses = parse_licenses(slurm.ask("scontrol", "-o", "show", "lic"))
    return Facts(config.get("SLURM_VERSION", ""), partitions, licenses, config)


def parse_nodes(text: str) -> list[Node]:
    columns = ("name", "state", "cpus", "memory", "gres", "partition", "use", "reason")
    return [
        Node(
            name=row["name"],
            state=row["state"],
            cpus=_number(row["cpus"]),
            memory_mib=_number(row["memory"]),
            gpus=sum(count for _, count in parse_gpus(row["gres"])),
            gpu_types=tuple(kind for kind, _ in parse_gpus(row["gres"]) if kind),
            partition=row["partition"].rstrip("*"),
            cpus_used=_number(row["use"]),
            reason="" if row["reason"] == "none" else row["reason"],
        )
        for row in rows(text, columns=columns)
    ]


def parse_gpus(gres: str) -> list[tuple[str, int]]:
    """(type, count) of `gpu:h100:4(S:0-1),shard:8`; the type may be empty."""
    return [(found["type"] or "", int(found["count"])) for found in _GPUS.finditer(gres)]


def parse_partitions(text: str, *, nodes: list[Node]) -> dict[str, Partition]:
    found = {}
    for line in text.splitlines():
        values = pairs(line)
        if "PartitionName" in values:
            name = values["PartitionName"]
            found[name] = Partition(
                name=name,
                is_up=values.get("State") == "UP",
                is_default=values.get("Default") == "YES",
                max_time_s=_time_s(values.get("MaxTime", "")),
                max_nodes=_limit(values.get("MaxNodes", "")),
                nodes=tuple(node for node in nodes if node.partition == name),
            )
    return found


def parse_config(text: str) -> dict[str, str]:
    lines = (line.split("=", 1) for line in text.splitlines() if " = " in line)
    return {name.strip(): value.strip() for name, value in lines}


def parse_licenses(text: str) -> dict[str, int]:
    """How many there are of each."""
    every = map(pairs, text.splitlines())
    return {each["LicenseName"]: _number(each.get("Total", "")) for each in every if "LicenseName" in each}


def _number(text: str) -> int:
    """The number that a cell begins with: `8+`, `1/7/0/8`; 0 where there is none."""
    found = re.match(r"[0-9]{1,15}", text, re.ASCII)
    return int(found[0]) if found else 0


def _limit(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else None


def _time_s(text: str) -> int | None:
    try:
        return parse_duration_s(text)
    except ConfigError:
        return None

"""The `cluster.toml` that `rsc cluster init` writes: what was chosen, and what there is to choose from."""

from __future__ import annotations

import tomlkit

from rsc.cluster.slurm.duration import format_duration
from rsc.cluster.slurm.facts import Facts, Partition

_NO_LIMIT_S = 24 * 3600  # asked of a partition without a limit: a job that says nothing is scheduled last


def site_text(facts: Facts) -> str:
    """TOML with the cluster's partitions as comments; `read_site` reads it."""
    name = facts.default_partition or next(iter(facts.partitions), "")
    chosen = facts.partitions.get(name)
    document = tomlkit.document()
    for line in (f"Slurm {facts.version}, cluster {facts.config.get('ClusterName', '')}. Partitions:",
                 *map(_partition, facts.partitions.values())):  # fmt: skip
        document.add(tomlkit.comment(_plain(line)))
    document.add("on", tomlkit.item("slurm"))
    table = tomlkit.table()
    for key, value, comment in _settings(chosen, name):
        item = tomlkit.item(value)
        item.comment(comment)
        table.add(key, item)
    document.add("slurm", table)
    environment = tomlkit.table()
    for key, comment in (
        ("modules", 'for `module load`: ["cuda/12.8"]'),
        ("setup", "lines of bash before a run"),
    ):
        item = tomlkit.item([])
        item.comment(comment)
        environment.add(key, item)
    document.add("environment", environment)
    return tomlkit.dumps(document)


def _settings(partition: Partition | None, name: str) -> list[tuple[str, str | int, str]]:
    nodes = partition.nodes if partition else ()
    limit_s = partition.max_time_s if partition else None
    return [
        ("partition", name, "empty: the cluster's default"),
        ("account", "", "empty: yours"),
        ("qos", "", "empty: the account's"),
        ("time", format_duration(limit_s or _NO_LIMIT_S), "of one start; a longer run goes on in the next"),
        ("gpus_per_node", min((node.gpus for node in nodes), default=0), "0: none"),
        ("cpus_per_node", min((node.cpus for node in nodes), default=0), "0: one"),
        ("memory", "", "of each node, for example 64G; empty: what the partition gives"),
    ]


def _partition(partition: Partition) -> str:
    nodes = partition.nodes
    kinds = sorted({kind for node in nodes for kind in node.gpu_types})
    longest = (
        "no time limit"
        if partition.max_time_s is None
        else f"at most {format_duration(partition.max_time_s)}"
    )
    cpus = max((node.cpus for node in nodes), default=0)
    gpus = max((node.gpus for node in nodes), default=0)
    return (
        f"  {partition.name}: {len(nodes)} nodes, up to {cpus} CPUs and {gpus} GPUs"
        f"{' (' + ', '.join(kinds) + ')' if kinds else ''} each; {longest}"
    )


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)

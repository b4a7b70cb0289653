"""Whether a job can ever start, from what it asks for and what the cluster has. Pure.

Slurm takes many impossible jobs in and lets them wait for ever (`PartitionNodeLimit`); here they are refused
before there is a job, with the numbers. Nodes that are down or drained count as there: they come back.

Not covered: limits of QOS and associations, reservations, and what a job_submit plugin of the site refuses:
Slurm reports those itself.
"""

from __future__ import annotations

from rsc.cluster.slurm.duration import format_duration, parse_duration_s
from rsc.cluster.slurm.facts import Facts, Node, Partition
from rsc.cluster.slurm.site import JobSettings
from rsc.errors import ConfigError
from rsc.layers import nearest

_MIB = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024**2}


def require_feasible(asked: JobSettings, facts: Facts, *, nodes: int) -> None:
    """Raises ConfigError with the arithmetic."""
    name = asked.partition or facts.default_partition
    partition = facts.partitions.get(name)
    if partition is None:
        raise ConfigError(
            f"there is no partition {name!r}" if name else "this cluster has no default partition",
            hint=nearest(name, facts.partitions, what="sinfo") if name else "set slurm.partition",
        )
    if not partition.is_up:
        raise ConfigError(f"partition {name} takes no jobs: it is not up", hint="see `rsc cluster status`")
    _require_time(asked, partition)
    _require_nodes(asked, partition, nodes)
    _require_licenses(asked, facts)


def _require_time(asked: JobSettings, partition: Partition) -> None:
    limit_s, asked_s = partition.max_time_s, parse_duration_s(asked.time)
    if limit_s is not None and asked_s is not None and asked_s > limit_s:
        raise ConfigError(
            f"slurm.time is {format_duration(asked_s)}; jobs of partition {partition.name} run "
            f"{format_duration(limit_s)} at most",
            hint=f"set slurm.time={format_duration(limit_s)}: a longer run goes on in a new start",
        )
    shortest_s = min((each for each in (limit_s, asked_s) if each is not None), default=None)
    if shortest_s is not None and shortest_s <= asked.warn_s:
        raise ConfigError(
            f"a start may run {format_duration(shortest_s)}, and its checkpoint begins {asked.warn_s} s "
            "before that: nothing would be trained",
            hint=f"ask for more time, or set slurm.warn_s below {shortest_s}",
        )


def _require_nodes(asked: JobSettings, partition: Partition, nodes: int) -> None:
    if partition.max_nodes is not None and nodes > partition.max_nodes:
        raise ConfigError(
            f"the job wants {nodes} nodes; partition {partition.name} gives a job "
            f"{partition.max_nodes} at most",
            hint=f"lower cluster.nodes and cluster.spares to {partition.max_nodes} in all",
        )
    fitting = [node for node in partition.nodes if _fits(asked, node)]
    if nodes <= len(fitting):
        return
    having = f"partition {partition.name} has {len(partition.nodes)} nodes"
    wanted = _wants(asked)
    if not wanted or not partition.nodes:
        raise ConfigError(
            f"the job wants {nodes} nodes; {having}", hint="see `rsc cluster status` for the others"
        )
    most = partition.nodes
    raise ConfigError(
        f"the job wants {nodes} nodes with {', '.join(wanted)} each; {having}, of which {len(fitting)} "
        f"have that (the most there: {max(node.gpus for node in most)} GPUs, "
        f"{max(node.cpus for node in most)} CPUs, {max(node.memory_mib for node in most):,} MiB)",
        hint="ask for less of each node or for fewer nodes, or name another slurm.partition",
    )


def _wants(asked: JobSettings) -> list[str]:
    wants = []
    if asked.gpus_per_node:
        wants.append(f"{asked.gpus_per_node} {asked.gpu_type + ' ' if asked.gpu_type else ''}GPUs")
    if asked.cpus_per_node:
        wants.append(f"{asked.cpus_per_node} CPUs")
    if asked.memory:
        wants.append(f"{memory_mib(asked.memory):,.0f} MiB")
    return wants


def _fits(asked: JobSettings, node: Node) -> bool:
    has_type = not asked.gpu_type or not asked.gpus_per_node or asked.gpu_type in node.gpu_types
    has_enough = node.gpus >= asked.gpus_per_node and node.cpus >= asked.cpus_per_node
    return has_type and has_enough and node.memory_mib >= memory_mib(asked.memory)


def memory_mib(text: str) -> float:
    """Of `--mem`: a plain number is MiB."""
    if not text:
        return 0
    return int(text.rstrip("KMGT")) * _MIB[text[-1] if text[-1] in "KMGT" else ""]


def _require_licenses(asked: JobSettings, facts: Facts) -> None:
    for part in filter(None, asked.licenses.split(",")):
        name, _, count = part.partition(":")
        there = facts.licenses.get(name, 0)
        if not (count or "1").isdecimal() or int(count or 1) > there:
            raise ConfigError(
                f"the job wants licence {part}; this cluster has {there} of {name}",
                hint=nearest(name, facts.licenses, what="scontrol show lic") if not there else None,
            )

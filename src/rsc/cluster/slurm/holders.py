"""Who holds what of a cluster now: one question, summed by user and partition.

Not covered: how well it is used; a GPU that is held and idle shows only on its node.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from rsc.cluster.slurm.commands import SlurmCommands

_WIDTHS = {"UserName": 64, "Partition": 64, "NumNodes": 16, "tres-per-node": 128, "tres-alloc": 512}
_AMOUNT = re.compile(r"(?:^|,)(cpu|gres/gpu)=([0-9]{1,12})", re.ASCII)
_PER_NODE = re.compile(r"gpu(?::[^:,]*?)??(?::([0-9]{1,6}))?(?:,|$)", re.ASCII)


@dataclass(frozen=True)
class Holder:
    user: str
    partition: str
    jobs: int
    nodes: int
    cpus: int
    gpus: int


def holders(slurm: SlurmCommands) -> list[Holder]:
    """Most GPUs first, then most CPUs."""
    columns = ",".join(f"{name}:{width}" for name, width in _WIDTHS.items())
    return parse_holders(slurm.ask("squeue", "-a", "-h", "-t", "running", "-O", columns))


def parse_holders(text: str) -> list[Holder]:
    sums: dict[tuple[str, str], Counter[str]] = {}
    for line in text.splitlines():
        cells = line.split()
        if len(cells) < 5 or not cells[2].isdecimal():
            continue
        total = sums.setdefault((cells[0], cells[1]), Counter())
        nodes = int(cells[2])
        per_node = _PER_NODE.search(cells[3])  # all that Slurm says of GPUs where it keeps no accounts
        gpus = {"gres/gpu": nodes * int(per_node[1] or 1)} if per_node else {}
        total.update(jobs=1, nodes=nodes)
        total.update({**gpus, **{name: int(count) for name, count in _AMOUNT.findall(cells[4])}})
    found = [
        Holder(user, partition, each["jobs"], each["nodes"], each["cpu"], each["gres/gpu"])
        for (user, partition), each in sums.items()
    ]
    return sorted(found, key=lambda each: (-each.gpus, -each.cpus, each.user))

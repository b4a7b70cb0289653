"""`python -m rsc.control.job JOB`: the controller of a job over several nodes.

It listens for the nodes' agents, starts them, and drives their ranks (cluster/supervise). To `rsc train` it
is what a supervisor of one node is: reports on stdout, wishes on stdin. It holds the secret of the job, runs
no training code, and ends its agents when it ends. No torch.
"""

from __future__ import annotations

import json
import resource
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from rsc.clock import SystemClock
from rsc.cluster.launch.node_processes import JobNode, NodeProcesses
from rsc.cluster.rendezvous.channel import SECRET_BYTES
from rsc.cluster.rendezvous.hub import Hub
from rsc.cluster.rendezvous.interfaces import address_of, address_towards
from rsc.cluster.supervise.agents import AgentNodes
from rsc.cluster.supervise.supervisor import supervise
from rsc.control.node_plan import NodePlan
from rsc.errors import RscError
from rsc.events import EventLog
from rsc.hardening import harden_process
from rsc.recipes.recipe import Recipe
from rsc.runs.node_job import NodeJob
from rsc.runs.worker_events import events_of_workers


@dataclass(frozen=True)
class ManyNodesJob:
    node_job: dict[str, Any]
    """What each node is asked to do."""
    before: list[str]
    """The command of an agent up to that, with its sandbox."""
    nodes: list[dict[str, Any]]
    """See JobNode."""
    worlds: list[int]
    """Numbers of ranks that the recipe has a mesh for."""
    workspace: str
    """Where nodes on other machines find keys and log."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


def possible_worlds(recipe: Recipe, *, most: int) -> list[int]:
    """Numbers of ranks up to `most` for which the recipe has a mesh: a job that loses a node goes on with the
    largest that has room."""
    found = []
    for world in range(1, most + 1):
        try:
            recipe.layout(world=world)
        except RscError:
            continue
        found.append(world)
    return found


def main(argument: str) -> int:
    harden_process()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # a connection a node, and strangers
    job = ManyNodesJob.from_json(argument)
    node_job = NodeJob.from_json(json.dumps(job.node_job))
    recipe = Recipe.model_validate(node_job.recipe)
    nodes = [JobNode.from_record(record) for record in job.nodes]
    cluster = recipe.cluster
    secret = secrets.token_bytes(SECRET_BYTES)
    interface = cluster.interface
    hub = Hub(secret, host=address_of(interface) if interface else address_towards(nodes[-1].address))
    node_job = replace(node_job, hub=hub.address, silence_s=cluster.node_silence_s)
    processes = NodeProcesses(nodes, _command(job, node_job, nodes), secret, cluster.node_starts)
    events = EventLog(events_of_workers(Path(node_job.run)), clock=SystemClock())
    there = AgentNodes(
        hub,
        processes,
        names=[node.name for node in nodes],
        workers=node_job.workers * cluster.nodes,
        worlds=job.worlds,
        silence_s=cluster.node_silence_s,
        join_s=cluster.join_s,
        rejoin_s=cluster.rejoin_s,
        events=events,
        owner=sys.stdin.fileno(),
    )
    try:
        processes.start_all()
        return supervise(there, config=recipe.train, events=events)
    finally:
        there.quit()
        processes.wait_or_end_all()
        hub.close()


def _command(job: ManyNodesJob, node_job: NodeJob, nodes: Sequence[JobNode]) -> list[str]:
    """What runs on a node: its agent, on another machine below a key agent of that node."""
    if not any(node.is_elsewhere for node in nodes):
        return [*job.before, node_job.to_json()]
    plan = NodePlan(job.workspace, Path(node_job.run).name, job.before, asdict(node_job))
    return [sys.executable, "-m", "rsc.control.node", plan.to_json()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""`python -m rsc.control.node PLAN NODE`: one node of a job that a scheduler spreads over machines.

It answers the ranks of its node as `rsc train` does those of its own: the key agent runs on each node, sees
who asks and where that lives, and opens keys from the workspace, which every node reaches. No key crosses the
network. Under it, in the sandbox, the node's agent joins the job (train/node.py). No torch here.

What it serves it reads from the run's papers, which have to be those that the log names; from its argument
comes only what the agent is started with. The secret of the job comes on stdin and goes on to the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rsc.cluster.rendezvous.channel import read_secret, write_secret
from rsc.cluster.sandbox.environment import for_workers
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.first_node import requeue_without_first_node
from rsc.config import Workspace
from rsc.control.controller import require_recipe
from rsc.control.drive import served_by, socket_folder
from rsc.control.node_plan import NodePlan
from rsc.control.workspace_gate import WorkspaceGate
from rsc.errors import ResourceError, RscError
from rsc.hardening import harden_process
from rsc.recipes.recipe import recipe_of
from rsc.release.agent.custody import Custody
from rsc.release.agent.job_scope import Served
from rsc.runs.folder import RunFolder
from rsc.runs.node_job import NodeJob


def main(argument: str, name: str) -> int:
    harden_process()
    plan = NodePlan.from_json(argument)
    secret = read_secret(sys.stdin.fileno())
    workspace = Workspace(Path(plan.workspace))
    custody = Custody(workspace)
    gate = WorkspaceGate(workspace, custody.providers, custody.clock, custody.account)
    serves = _served(RunFolder(workspace.runs / plan.run), gate)
    with socket_folder() as socket, gate.serve(socket, serves=serves):
        node_job = NodeJob.from_json(json.dumps(plan.node_job))
        node_job = replace(node_job, socket=str(socket))
        code = _run_agent([*plan.before, node_job.to_json(), name], secret)
    if code == ResourceError.exit_code:  # it has lost the job's controller
        requeue_without_first_node(os.environ, InstalledSlurm(), custody.clock)
    return code


def _served(run: RunFolder, gate: WorkspaceGate) -> Served:
    """Raises IntegrityError where the run's papers are not those of the log."""
    origin = gate.origin(run.id)
    origin.require_papers(run.record().lineage)
    require_recipe(run, origin)
    return served_by(run, recipe_of(run), controllers=0)


def _run_agent(command: list[str], secret: bytes) -> int:
    environment = {**for_workers(os.environ), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as agent, _passed_on(agent):
        assert agent.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, with its words on stderr
            agent.stdin.write(write_secret(secret))
            agent.stdin.flush()
        return agent.wait()


@contextmanager
def _passed_on(agent: subprocess.Popen[bytes]) -> Iterator[None]:
    """A scheduler's request to leave is the agent's to hear; this process ends after it."""

    def pass_on(number: int, frame: object) -> None:
        agent.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            agent.kill()


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except RscError as error:
        print(f"node {sys.argv[-1]}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)

"""The nodes of the job that this process runs in, and how an agent is started on one of them.

Each node gets a step of its own, started by a `srun` whose end is that of the node's agent. Slurm passes
SIGTERM on to steps, and ends them after KillWait, as it does with the script of the job.

Not covered: `srun` carries the stdin of a step, and so the secret of the job, unencrypted: the network
between the nodes has to be the cluster's own, as it has for what ranks say to each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.launch.node_processes import JobNode
from rsc.cluster.slurm.commands import SlurmCommands, pairs
from rsc.errors import ConfigError

_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)
_GPUS = re.compile(r"([A-Za-z0-9_.-]{1,64}:)?[0-9]{1,4}", re.ASCII)
_KEPT = ("SLURM_CONF",)
"""Variables of Slurm that its commands need; what goes to workers is another list."""


def launcher_of_job(environment: Mapping[str, str], slurm: SlurmCommands) -> LocalLauncher:
    """Inside a job of several nodes one for these, else for this machine. Raises as `SlurmCommands.ask`."""
    if environment.get("SLURM_JOB_NUM_NODES", "1") == "1":
        return LocalLauncher()
    return LocalLauncher(others=Allocation(environment, slurm).nodes())


@dataclass(frozen=True)
class Allocation:
    environment: Mapping[str, str]
    """Of a job."""
    slurm: SlurmCommands

    def nodes(self) -> tuple[JobNode, ...]:
        """This one first; those that were lost too, for a start finds out who is there.

        Raises ConfigError where the environment is none of a job.
        """
        job, names = self.environment.get("SLURM_JOB_ID", ""), self.environment.get("SLURM_JOB_NODELIST", "")
        if not _NUMBER.fullmatch(job) or not names:
            raise ConfigError(
                "this process is in no job of Slurm", hint="start it with `rsc train --on slurm`"
            )
        told = map(pairs, self.slurm.ask("scontrol", "-o", "show", "node", names).splitlines())
        there = {each["NodeName"]: each for each in told if _NAME.fullmatch(each.get("NodeName", ""))}
        here = self.environment.get("SLURMD_NODENAME", "")
        ordered = sorted(there, key=lambda name: name != here)  # stable: the others as Slurm has them
        return tuple(
            JobNode(name, self._prefix(job, name), there[name].get("NodeAddr") or name, is_elsewhere=True)
            for name in ordered
        )

    def _prefix(self, job: str, name: str) -> tuple[str, ...]:
        kept = [f"{each}={self.environment[each]}" for each in _KEPT if each in self.environment]
        cpus, gpus = (
            self.environment.get(f"SLURM_{each}", "") for each in ("CPUS_PER_TASK", "GPUS_PER_NODE")
        )
        return (
            *("env", *kept, "srun", f"--jobid={job}", f"--nodelist={name}", "--nodes=1", "--ntasks=1"),
            *("--overlap", "--mem=0", "--unbuffered", f"--job-name=rsc-agent-{name}"),
            *([f"--cpus-per-task={cpus}"] if _NUMBER.fullmatch(cpus) else []),
            *([f"--gpus-per-node={gpus}"] if _GPUS.fullmatch(gpus) else []),
        )

"""The nodes of a job, and what becomes of it when its first one is lost; answers of Slurm are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.slurm.allocation import Allocation, launcher_of_job
from rsc.cluster.slurm.first_node import requeue_without_first_node
from rsc.errors import ConfigError, ResourceError

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURMD_NODENAME": "n2",
    "SLURM_CONF": "/etc/slurm/it's.conf",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_GPUS_PER_NODE": "h100:8",
    "SECRET": "s",
}


class Answers:
    def __init__(self, **answers: str | Callable[[], str]) -> None:
        self.answers, self.asked = answers, list[str]()

    def ask(self, *argv: str) -> str:
        self.asked.append(" ".join(argv))
        for word, answer in self.answers.items():
            if word in argv:
                return answer if isinstance(answer, str) else answer()
        raise ResourceError(f"{argv[0]} failed")


NODES = "\n".join(f"NodeName=n{n} Arch=x86_64 NodeAddr=10.0.0.{n} State=ALLOCATED" for n in (1, 2, 3))


def test_a_job_has_its_nodes_this_one_first() -> None:
    nodes = Allocation(JOB, Answers(node=NODES)).nodes()
    assert [node.name for node in nodes] == ["n2", "n1", "n3"]
    assert [node.address for node in nodes] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    assert all(node.is_elsewhere for node in nodes)
    prefix = nodes[1].prefix
    assert prefix[:3] == ("env", "SLURM_CONF=/etc/slurm/it's.conf", "srun")
    assert {"--jobid=7", "--nodelist=n1", "--cpus-per-task=4", "--gpus-per-node=h100:8"} <= set(prefix)
    assert not any("SECRET" in word for word in prefix)


@pytest.mark.parametrize("name", ["--wrap=x", "n;id", "", "../n"])
def test_a_name_that_is_none_is_no_node(name: str) -> None:
    assert Allocation(JOB, Answers(node=f"NodeName={name} NodeAddr=10.0.0.1")).nodes() == ()


@pytest.mark.parametrize("job", [{}, {"SLURM_JOB_ID": "7;id"}, {"SLURM_JOB_NODELIST": ""}])
def test_outside_a_job_there_are_none(job: dict[str, str]) -> None:
    environment = {**JOB, **job} if job else {}
    with pytest.raises(ConfigError, match="in no job"):
        Allocation(environment, Answers(node=NODES)).nodes()


def test_only_several_nodes_ask_slurm() -> None:
    slurm = Answers(node=NODES)
    assert launcher_of_job({}, slurm) == launcher_of_job({**JOB, "SLURM_JOB_NUM_NODES": "1"}, slurm)
    assert slurm.asked == []
    assert len(launcher_of_job(JOB, slurm).others) == 3
    assert LocalLauncher().others == ()


def requeues(
    job: str, hosts: str | Callable[[], str], clock: Any, **environment: str
) -> tuple[bool, Answers]:
    slurm = Answers(requeue="", job=job, hostnames=hosts)
    return requeue_without_first_node({**JOB, **environment}, slurm, clock), slurm


RUNNING = "JobId=7 JobState=RUNNING NodeList=n[2-3] BatchHost=n1"


def test_a_job_that_lost_its_first_node_is_requeued_once_it_shows(clock: Any) -> None:
    answers = iter(["n1\nn2\nn3\n", "n2\nn3\n"])
    done, slurm = requeues(RUNNING, lambda: next(answers), clock)
    assert done
    assert slurm.asked[-1] == "scontrol requeue 7"
    assert len(slurm.asked) == 5


@pytest.mark.parametrize(
    ("job", "hosts"),
    [
        (RUNNING, "n1\nn2\nn3\n"),
        (RUNNING.replace("RUNNING", "COMPLETING"), "n2\n"),
        ("JobId=7 JobState=PENDING", "n2\n"),
        ("slurm_load_jobs error", "n2\n"),
        (RUNNING.replace("BatchHost=n1", ""), "n2\n"),
    ],
)
def test_any_other_job_is_left_alone(job: str, hosts: str, clock: Any) -> None:
    done, slurm = requeues(job, hosts, clock)
    assert not done
    assert "scontrol requeue 7" not in slurm.asked


def test_what_is_no_job_is_not_asked_about(clock: Any) -> None:
    done, slurm = requeues(RUNNING, "n2\n", clock, SLURM_JOB_ID="7 8")
    assert not done
    assert slurm.asked == []

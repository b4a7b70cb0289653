"""A real Slurm for tests: `slurm_cluster`, one for a test session.

In a project of yours, with this package and pytest installed, in the conftest.py beside your tests:

    pytest_plugins = ["rsc.cluster.dev.fixture"]

    @pytest.mark.slurm
    def test_a_job_is_requeued(slurm_cluster):
        job = slurm_cluster.run(["sbatch", "--parsable", "--requeue", "job.sh"])
        slurm_cluster.faults.kill_node("n1", tell=True)

`slurm_network` is a cluster whose nodes have networks of their own; `slurm_accounting` has slurmdbd. A test
that needs what this machine does not have is skipped, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from rsc.cluster.dev.cluster import DevCluster, missing
from rsc.cluster.dev.plan import ClusterPlan, default_folder


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: needs a Slurm installation")


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[DevCluster]:
    """Four nodes with four fake GPUs each."""
    yield from _cluster("test")


@pytest.fixture(scope="session")
def slurm_network() -> Iterator[DevCluster]:
    """The same with a network and a host name of each node: for `cut_network`, `slow_link`, `fill_disk`."""
    yield from _cluster("net", namespaces=True)


@pytest.fixture(scope="session")
def slurm_accounting() -> Iterator[DevCluster]:
    """The same with slurmdbd: sacct, and the QOS `high`, which preempts `normal`."""
    yield from _cluster("acct", accounting=True)


def _cluster(name: str, **options: Any) -> Iterator[DevCluster]:
    if reason := missing(**options):
        pytest.skip(f"no Slurm for tests: {reason}")
    with DevCluster.started(ClusterPlan(default_folder(f"{name}{os.getpid()}"), **options)) as cluster:
        yield cluster

"""A run over several nodes of a real Slurm: equal to one process; after a loss on with a spare, or anew."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rsc.cluster.dev.cluster import DevCluster
from rsc.runs.folder import RunFolder
from tests.train.test_on_slurm import ends_as, on_slurm, state_of, wait_for

__all__ = ["on_slurm"]
pytestmark = pytest.mark.slurm

TOLERANCE = 1e-5
"""As in tests/train/test_nodes.py."""
NODE = ("slurm.memory=1800M", "slurm.cpus_per_node=2")
SLOW = "train.fail_at=rank=0,step=1,kind=slow"


def submit(rsc: Any, *overrides: str) -> tuple[RunFolder, str]:
    told = rsc.run(*rsc.train_command(*NODE, *overrides), "--on", "slurm")
    return RunFolder(rsc.workspace.runs / told["run"]), told["job"]


def losses(rsc: Any, run: str) -> list[float]:
    found = rsc.losses(run)
    assert sorted(found) == list(range(1, len(found) + 1))
    return list(found.values())


def placed(rsc: Any, run: str) -> list[list[str]]:
    return [event["nodes"] for event in rsc.events_of(run, "placed")]


def has_no_process_of(run: str) -> bool:
    found = subprocess.run(["pgrep", "-f", f"rsc.*{run}"], capture_output=True, text=True)
    return not found.stdout.split()


def test_two_nodes_give_the_losses_of_one_process(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    run, job = submit(on_slurm, "parallel.workers=2", "cluster.nodes=2")
    ends_as(run, "finished")
    wait_for(lambda: state_of(slurm_cluster, job) in ("COMPLETED", ""))
    alone = on_slurm.train("parallel.workers=1")["run"]
    assert losses(on_slurm, run.id) == pytest.approx(losses(on_slurm, alone), rel=TOLERANCE)
    assert placed(on_slurm, run.id) == [["n1", "n2"]]
    assert wait_for(lambda: has_no_process_of(run.id))


@contextmanager
def lost(cluster: DevCluster, node: str) -> Iterator[None]:
    cluster.faults.kill_node(node, tell=True)
    try:
        yield
    finally:
        cluster.faults.restore_node(node)
        cluster.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)


@pytest.mark.slow
def test_a_spare_takes_the_place_of_a_lost_node_in_the_same_job(
    on_slurm: Any, slurm_cluster: DevCluster
) -> None:
    two = ("parallel.workers=2", "cluster.nodes=2", "train.steps=100", "checkpoint.every=0")
    run, job = submit(on_slurm, *two, SLOW, "cluster.spares=1", "train.snapshot_every=2")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 6)
    first = placed(on_slurm, run.id)[0]
    with lost(slurm_cluster, first[1]):
        ends_as(run, "finished")
        wait_for(lambda: state_of(slurm_cluster, job) in ("COMPLETED", ""))
    (_, second) = placed(on_slurm, run.id)
    assert second[0] == first[0]
    assert second[1] not in first, "the spare, which is the node that was last to join"
    (failure,) = on_slurm.events_of(run.id, "failure")
    resumed = [event for event in on_slurm.events_of(run.id, "resumed") if event["step"]]
    assert {event["from"] for event in resumed} == {"snapshot"}
    assert all(failure["step"] - event["step"] <= 2 for event in resumed)
    assert not any(event["store_bytes_read"] for event in resumed)
    whole = on_slurm.train(*two)["run"]
    assert losses(on_slurm, run.id) == losses(on_slurm, whole)
    assert wait_for(lambda: has_no_process_of(run.id))


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["of the controller", "of an agent"])
def test_without_a_spare_a_lost_node_ends_in_a_requeue(
    on_slurm: Any, slurm_cluster: DevCluster, which: int
) -> None:
    two = ("parallel.workers=2", "parallel.tp=2", "train.steps=100")
    run, job = submit(on_slurm, *two, SLOW, "cluster.nodes=2", "cluster.rejoin_s=2")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 6)
    first = placed(on_slurm, run.id)[0]
    with lost(slurm_cluster, first[which]):
        assert ends_as(run, "finished").resumed_at >= 4
        wait_for(lambda: state_of(slurm_cluster, job) in ("COMPLETED", ""))
    assert first[which] not in placed(on_slurm, run.id)[-1]
    alone = on_slurm.train("parallel.workers=1", "train.steps=100")["run"]
    assert losses(on_slurm, run.id) == pytest.approx(losses(on_slurm, alone), rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeue", "stop"])
def test_sigterm_and_stop_end_in_a_checkpoint_of_all_nodes(
    on_slurm: Any, slurm_cluster: DevCluster, how: str
) -> None:
    two = ("parallel.workers=2", "cluster.nodes=2", "train.steps=60", "checkpoint.every=0")
    run, job = submit(on_slurm, *two, SLOW)
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 6)
    if how == "requeue":
        slurm_cluster.run(["scontrol", "requeue", job])
    else:
        on_slurm.run("runs", "stop", run.id)
        ends_as(run, "requeue")
        wait_for(lambda: state_of(slurm_cluster, job) in ("FAILED", ""))
        on_slurm.run("runs", "resume", run.id)
    assert 0 < ends_as(run, "finished").resumed_at < 60

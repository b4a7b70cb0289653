"""A job over several nodes: agents as processes of this machine, whose ranks meet over its network."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

TOLERANCE = 1e-5
"""Of the losses of another mesh, relative: as in tests/parallel."""


def losses(rsc: Any, run: str) -> list[float]:
    """By step; every step is there once."""
    found = rsc.losses(run)
    assert sorted(found) == list(range(1, len(found) + 1))
    return list(found.values())


def test_a_lost_node_is_started_again_and_takes_its_snapshots_from_its_neighbour(rsc_with_text: Any) -> None:
    """Two nodes of two ranks: the losses of a run that nothing happened to, and no checkpoint is read."""
    rsc = rsc_with_text
    four = ("parallel.workers=4", "parallel.tp=2", "checkpoint.every=0")
    whole = rsc.train(*four)["run"]
    fault = "train.fail_at=rank=2,step=8,kind=node"
    nodes = ("cluster.nodes=2", "train.snapshot_every=3")
    run = rsc.train(*four, *nodes, fault)["run"]
    assert losses(rsc, run) == pytest.approx(losses(rsc, whole), rel=TOLERANCE)
    (failure,) = rsc.events_of(run, "failure")
    assert (failure["rank"], failure["reason"]) == (2, "node")
    resumed = [event for event in rsc.events_of(run, "resumed") if event["step"]]
    assert [(event["from"], event["step"]) for event in resumed] == [("snapshot", 6)] * 4
    assert not any(event["store_bytes_read"] for event in resumed)
    lost = [event["node"] for event in rsc.events_of(run, "node_lost")]
    assert lost == ["node1"]


EVERY_AXIS = {
    "dp_shard 8": (),
    "dp_replicate 4 x dp_shard 2": ("parallel.dp_replicate=4",),
    "tp 4 x dp_shard 2": ("parallel.tp=4", "model.trunk.num_heads=4"),
    "cp 4 x dp_shard 2": ("parallel.cp=4",),
    "pp 4 x dp_shard 2": ("parallel.pp=4", "model.trunk.num_layers=4", "parallel.microbatches=4"),
    "tp 2 x cp 2 x pp 2": ("parallel.tp=2", "parallel.cp=2", "parallel.pp=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("axes", EVERY_AXIS)
def test_four_nodes_of_two_ranks_give_the_losses_of_one_process(rsc_with_text: Any, axes: str) -> None:
    rsc, model = rsc_with_text, (*EVERY_AXIS[axes], "train.batch_size=8")
    sizes = [setting for setting in model if not setting.startswith("parallel.")]
    alone = losses(rsc, rsc.train(*sizes, "parallel.workers=1", timeout_s=600)["run"])
    over = rsc.train(*model, "parallel.workers=8", "cluster.nodes=4", timeout_s=600)["run"]
    assert losses(rsc, over) == pytest.approx(alone, rel=TOLERANCE)


THREE = ("parallel.workers=3", "train.batch_size=12", "cluster.nodes=3", "train.steps=16")
"""Three nodes of one rank each; any number of ranks up to three has a mesh."""


@pytest.mark.slow
def test_a_spare_goes_on_from_the_snapshots_of_a_lost_node(rsc_with_text: Any) -> None:
    """Bit-equal to the same job without a loss, within `snapshot_every` steps, and nothing is read."""
    rsc = rsc_with_text
    whole = rsc.train(*THREE, "checkpoint.every=0", timeout_s=600)["run"]
    spare = ("cluster.spares=1", "train.snapshot_every=2", "checkpoint.every=0")
    fault = "train.fail_at=rank=1,step=10,kind=node"
    run = rsc.train(*THREE, *spare, fault, timeout_s=600)["run"]
    assert losses(rsc, run) == losses(rsc, whole)
    before, after = (event["nodes"] for event in rsc.events_of(run, "placed"))
    assert (after[0], after[2]) == (before[0], before[2])
    assert {after[1]} == {"node0", "node1", "node2", "node3"} - set(before)
    (failure,) = rsc.events_of(run, "failure")
    resumed = [event for event in rsc.events_of(run, "resumed") if event["step"]]
    assert {event["from"] for event in resumed} == {"snapshot"}
    assert all(failure["step"] - event["step"] <= 2 for event in resumed)
    assert not any(event["store_bytes_read"] for event in resumed)


@pytest.mark.slow
def test_a_job_goes_on_with_fewer_nodes_and_back_with_all(rsc_with_text: Any) -> None:
    """Three nodes, then two, then (resumed) three again: every step once, from the same place in the data,
    with the losses of one process."""
    rsc = rsc_with_text
    sizes = ("train.batch_size=12", "train.steps=16")
    alone = rsc.train(*sizes, "parallel.workers=1", timeout_s=600)["run"]
    faults = "rank=2,step=6,kind=node;rank=0,step=11,kind=sigterm"
    options = ("cluster.node_starts=1", "checkpoint.every=2", f"train.fail_at={faults}")
    run = rsc.train(*THREE, *options, expect=75, timeout_s=600)["run"]
    assert [event["world"] for event in rsc.events_of(run, "placed")] == [3, 2]
    rsc.run("runs", "resume", run, "--json", timeout_s=600)
    assert [event["world"] for event in rsc.events_of(run, "placed")] == [3, 2, 3]
    assert losses(rsc, run) == pytest.approx(losses(rsc, alone), rel=TOLERANCE)
    read = {line["step"]: line["read_to"] for line in rsc.metrics(run)}
    assert read == {line["step"]: line["read_to"] for line in rsc.metrics(alone)}


@pytest.mark.slow
def test_a_job_whose_controller_is_killed_goes_on_from_its_checkpoint(rsc_with_text: Any) -> None:
    rsc = rsc_with_text
    whole = rsc.train(*THREE, timeout_s=600)["run"]
    process = rsc.start(*rsc.train_command(*THREE, "train.fail_at=rank=0,step=1,kind=slow"))
    run = next(line.split()[1].rstrip(":") for line in process.stderr or () if line.startswith("run "))
    while not rsc.events_of(run, "checkpoint") and process.poll() is None:
        time.sleep(0.05)
    rank = rsc.events_of(run, "worker")[0]["pid"]
    os.kill(controller_of(rank), signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "the supervisor was ended by a signal" in err
    assert losses(rsc, run) == losses(rsc, whole)


def controller_of(pid: int) -> int:
    """The process of `rsc.control.job` above a rank."""
    while b"rsc.control.job" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid

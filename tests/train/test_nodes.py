"""A job over several nodes: agents as processes of this machine, whose ranks meet over its network."""

from __future__ import annotations

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

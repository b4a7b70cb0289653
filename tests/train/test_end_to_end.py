"""`rsc train` as a user runs it: real sandbox, key agent, worker processes, encrypted checkpoints."""

from __future__ import annotations

from typing import Any

import pytest

from rsc.clock import SystemClock
from rsc.keys.envelope import data_kek_id, period_of
from rsc.keys.providers.local import LocalKeyProvider


def test_killed_worker_restarts_the_world_and_the_losses_are_equal(
    rsc_with_text: Any, whole: dict[int, float]
) -> None:
    result = rsc_with_text.train("train.fail_at=rank=1,step=7,kind=sigkill")
    assert (result["state"], result["restarts"], result["resumed_at"]) == ("finished", 1, 4)
    assert rsc_with_text.losses(result["run"]) == whole
    (failure,) = rsc_with_text.events_of(result["run"], "failure")
    assert (failure["rank"], failure["reason"], failure["step"]) == (1, "sigkill", 6)


def test_unreviewed_data_is_refused_with_code_3_before_anything_is_made(fresh_rsc: Any) -> None:
    rsc = fresh_rsc
    rsc.add_text(["one", "two"], approved=False)
    told = rsc.train(expect=3)["stderr"]
    assert "ReviewMissing: topics is in review" in told
    assert not rsc.workspace.runs.exists()


def test_changed_review_and_destroyed_key_are_refused_with_code_3(fresh_rsc: Any) -> None:
    rsc = fresh_rsc
    rsc.add_text(["one", "two"])
    report = rsc.workspace.data / "topics" / "v0001" / "review" / "report.json"
    report.write_bytes(b"{ }")
    assert "ReviewVoid" in rsc.train(expect=3)["stderr"]
    report.write_bytes(b"{}")
    clock = SystemClock()
    provider = LocalKeyProvider(rsc.workspace.keys, clock=clock)
    provider.destroy(data_kek_id("topics", period=period_of(clock.now())))
    assert "KeyUnavailable" in rsc.train(expect=3)["stderr"]
    assert not rsc.workspace.runs.exists()


def test_impossible_mesh_is_refused_with_the_arithmetic(rsc_with_text: Any) -> None:
    told = rsc_with_text.train("parallel.tp=3", "parallel.workers=3", expect=2)["stderr"]
    assert "tp 3 does not divide num_kv_heads 2" in told
    assert "hint: set parallel.tp=1 train.batch_size=6" in told


@pytest.mark.slow
def test_two_ranks_start_from_the_weights_of_another_run(rsc_with_text: Any, whole: dict[int, float]) -> None:
    """And take them up once more when they are thrown back before their first checkpoint."""
    parent = rsc_with_text.train("train.steps=4")["run"]
    child = rsc_with_text.train(
        f"model.init_from={parent}", "train.steps=4", "train.fail_at=rank=1,step=3,kind=sigkill"
    )
    assert (child["state"], child["restarts"]) == ("finished", 1)
    losses = rsc_with_text.losses(child["run"])
    assert losses[1] < whole[1]
    resumed = rsc_with_text.events_of(child["run"], "resumed")
    assert [event["store_files_read"] > 0 for event in resumed] == [True] * 4, "the parent's, on both ranks"

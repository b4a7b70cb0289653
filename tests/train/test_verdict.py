"""What a supervisor decides, from facts alone."""

from __future__ import annotations

import pytest

from rsc.train.board import Phase
from rsc.train.config import TrainConfig
from rsc.train.verdict import Failure, Restarts, first_failure, hanging_rank, stragglers

PEER = {"rank": 0, "error": "RuntimeError", "where": "x.py:1", "message": "", "hint": None,
        "exit_code": 1, "kind": "peer"}  # fmt: skip


def test_the_killed_rank_is_the_cause_and_not_the_peers_that_heard_of_it() -> None:
    found = first_failure({0: 1, 1: -9, 2: 1}, reports={0: PEER, 2: {**PEER, "rank": 2}})
    assert (found.rank, found.kind, found.message) == (1, "sigkill", "ended by SIGKILL")


def test_a_rank_with_an_error_of_its_own_is_the_cause() -> None:
    refused = {
        **PEER,
        "rank": 2,
        "kind": "ReviewVoid",
        "message": "it changed",
        "exit_code": 3,
        "hint": "look",
    }
    found = first_failure({0: 1, 2: 3}, reports={0: PEER, 2: refused})
    assert found == Failure(2, "ReviewVoid", "it changed", 3, "look")
    assert found.is_fatal


def test_a_rank_without_a_word_is_named_with_its_code_and_log() -> None:
    found = first_failure({1: 7}, reports={})
    assert "ended with code 7" in found.sentence()
    assert "logs/rank1.log" in found.sentence()
    assert not found.is_fatal


def hanging(
    *,
    beats: list[float],
    steps: list[int],
    now: float,
    durations: list[float],
    phases: list[int] | None = None,
) -> int | None:
    config = TrainConfig(hang_medians=20, hang_floor_s=5)
    return hanging_rank(
        beats_s=beats,
        steps=steps,
        phases=phases or [Phase.COMPUTE] * len(steps),
        durations_s=durations,
        now_s=now,
        config=config,
    )


def test_a_rank_that_waits_for_another_is_not_the_one_that_hangs() -> None:
    """It came to the collective first, so it is silent for longer."""
    facts = {"beats": [99.0, 100.0], "steps": [6, 6], "durations": [1.0] * 9}
    assert hanging(now=121.0, phases=[Phase.COMPUTE, Phase.DATA], **facts) == 1


def test_the_rank_that_is_behind_hangs_and_only_after_the_patience() -> None:
    facts = {"beats": [100.0, 99.0], "steps": [8, 7], "durations": [1.0] * 9}
    assert hanging(now=119.0, **facts) is None
    assert hanging(now=121.0, **facts) == 1


def test_the_floor_holds_for_fast_steps_and_ten_floors_for_the_first() -> None:
    assert hanging(beats=[100.0], steps=[8], now=104.0, durations=[0.01]) is None
    assert hanging(beats=[100.0], steps=[8], now=106.0, durations=[0.01]) == 0
    assert hanging(beats=[100.0], steps=[0], now=149.0, durations=[]) is None
    assert hanging(beats=[100.0], steps=[0], now=151.0, durations=[]) == 0


@pytest.mark.parametrize(
    ("work", "slow"),
    [([1.0, 1.0, 1.0, 1.6], [3]), ([1.0, 1.4], []), ([0.1, 0.4], [1]), ([5.0], []), ([0.0, 0.0], [])],
)
def test_a_straggler_works_longer_than_the_others(work: list[float], slow: list[int]) -> None:
    assert stragglers(work, ratio=1.5) == slow


def test_progress_between_failures_is_no_crash_loop() -> None:
    restarts = Restarts(limit=3)
    for step in (5, 10, 15, 20):
        restarts = restarts.after(step=step)
        assert not restarts.is_crash_loop
    assert restarts.total == 4
    stuck = restarts.after(step=20).after(step=12)
    assert stuck.is_crash_loop
    assert stuck.best_step == 20

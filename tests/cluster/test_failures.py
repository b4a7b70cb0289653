"""What a supervisor decides, from facts alone."""

from __future__ import annotations

import pytest

from rsc.cluster.supervise.failures import (
    Failure,
    Restarts,
    Silence,
    StepPace,
    collective_patience_s,
    first_failure,
    is_hang,
    rank_behind,
    stragglers,
)
from rsc.cluster.supervise.heartbeats import Phase
from rsc.recipes.sections import TrainConfig

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


CONFIG = TrainConfig(hang_medians=20, hang_floor_s=5)
STEPPING = [Phase.COMPUTE, Phase.DATA]


def test_a_rank_that_waits_for_another_is_not_the_one_behind() -> None:
    """It came to the collective first, so it is silent for longer."""
    facts = {"answered": [True, True], "beats_s": [99.0, 100.0], "steps": [6, 6]}
    assert rank_behind(phases=[Phase.COMPUTE, Phase.DATA], **facts) == 1
    assert rank_behind(phases=[Phase.COMPUTE, Phase.CHECKPOINT], **facts) == 1
    assert rank_behind(phases=[Phase.COMPUTE, Phase.COMPUTE], **facts) == 0


def test_the_rank_with_fewer_steps_is_behind() -> None:
    facts = {"answered": [True, True], "beats_s": [100.0, 99.0]}
    assert rank_behind(steps=[8, 7], phases=[Phase.DATA, Phase.COMPUTE], **facts) == 1


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_was_stopped_inside_a_step_is_the_one_behind(stopped: int) -> None:
    """All ranks stand in the same phase of the same step: who beat first is chance."""
    facts = {"beats_s": [99.0, 100.0], "steps": [6, 6], "phases": [Phase.COMPUTE, Phase.COMPUTE]}
    assert rank_behind(answered=[rank != stopped for rank in (0, 1)], **facts) == stopped


def test_a_collective_waits_longer_than_the_supervisor() -> None:
    longest_s = 10 * CONFIG.hang_floor_s
    assert is_hang(longest_s, phases=STEPPING, durations_s=[], config=CONFIG)
    assert collective_patience_s(CONFIG, timeout_s=1.0) > longest_s
    assert collective_patience_s(CONFIG, timeout_s=900.0) == 900.0


def test_a_hang_takes_medians_and_floors() -> None:
    assert not is_hang(19.0, phases=STEPPING, durations_s=[1.0] * 9, config=CONFIG)
    assert is_hang(21.0, phases=STEPPING, durations_s=[1.0] * 9, config=CONFIG)
    assert not is_hang(4.0, phases=STEPPING, durations_s=[0.01], config=CONFIG)
    assert is_hang(6.0, phases=STEPPING, durations_s=[0.01], config=CONFIG)


def test_a_start_and_a_checkpoint_have_ten_floors() -> None:
    for phases, durations_s in (([Phase.START] * 2, []), ([Phase.CHECKPOINT, Phase.COMPUTE], [0.01])):
        assert not is_hang(49.0, phases=phases, durations_s=durations_s, config=CONFIG)
        assert is_hang(51.0, phases=phases, durations_s=durations_s, config=CONFIG)


def test_silence_is_what_the_supervisor_lived_through() -> None:
    silence = Silence()
    now_s = 100.0
    assert silence.look([99.0, 100.0], now_s=now_s) == 0
    for _ in range(50):
        now_s += 0.02
        heard = silence.look([99.0, 100.0], now_s=now_s)
    assert heard == pytest.approx(1.0)
    assert silence.look([99.0, 100.0], now_s=now_s + 3600) == pytest.approx(2.0), "the machine stood still"
    assert silence.look([99.0, 4800.0], now_s=4800.0) == 0


def test_one_slow_step_makes_no_straggler_and_a_slow_rank_is_told_once() -> None:
    pace = StepPace(ratio=1.5)
    assert [pace.fresh_stragglers([1.0, 9.0 if step == 3 else 1.0]) for step in range(16)] == [[]] * 16
    slow = [pace.fresh_stragglers([1.0, 2.0]) for _ in range(16)]
    assert sorted(slow) == [[]] * 15 + [[1]]


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

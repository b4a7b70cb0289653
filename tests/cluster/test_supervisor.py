"""What a supervisor does with ranks that do not end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsc.clock import SystemClock
from rsc.cluster.supervise.config import SupervisionConfig
from rsc.cluster.supervise.exits import still_there
from rsc.cluster.supervise.failures import Failure
from rsc.cluster.supervise.heartbeats import Board, Phase
from rsc.cluster.supervise.local_node import OneNode, local_node
from rsc.cluster.supervise.ranks import Ranks
from rsc.cluster.supervise.reports import write_error
from rsc.cluster.supervise.spec import Ending, Entry, Placement, RankSpec
from rsc.cluster.supervise.supervisor import _unkillable, supervise
from rsc.errors import ConfigError
from rsc.events import EventLog


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What a supervisor changes of its process is as before after the test."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def open_stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A controller that says nothing."""
    ours, theirs = os.pipe()
    with os.fdopen(ours) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield
    os.close(theirs)


def beat(spec: RankSpec, *, local_rank: int, step: int) -> None:
    board = Board(spec.board, num_ranks=spec.place.local_world)
    board.beat(local_rank, phase=Phase.DATA, step=step, first_step=0)


def leaves_when_asked(local_rank: int, spec: RankSpec) -> Ending:
    """As a rank of training: at the end of a step it looks whether it should leave."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    board = Board(spec.board, num_ranks=spec.place.local_world)
    while not board.stop_requested:
        time.sleep(0.005)
    beat(spec, local_rank=local_rank, step=3)
    return Ending.REQUEUE


def dies_once(local_rank: int, spec: RankSpec) -> Ending:
    """Rank 1 of the first start dies of a signal, the others wait for it."""
    if spec.attempt.split(".")[1] == "0":
        beat(spec, local_rank=local_rank, step=1)
        if local_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    beat(spec, local_rank=local_rank, step=2)
    return Ending.FINISHED


def fails_by_its_settings(local_rank: int, spec: RankSpec) -> Ending:
    error = ConfigError("batch_size 3 is odd", hint="take 4")
    write_error(spec.run, rank=local_rank, error=error, kind="ConfigError")
    os._exit(error.exit_code)


def start(run: Path, entry: Entry, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of two ranks under supervision, and what the controller would read."""
    (run / "logs").mkdir()
    events = EventLog(run / "logs" / "events.jsonl", clock=SystemClock())
    with local_node(run, slots=2, entry=entry) as node:
        code = supervise(OneNode(node), config=SupervisionConfig(), events=events)
    events.close()
    return code, [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.usefixtures("own_signals", "open_stdin")
def test_a_sigterm_while_ranks_are_forked_asks_for_an_end_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    init = Ranks.__init__

    def asked(self: Ranks, *arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        init(self, *arguments, **named)

    monkeypatch.setattr(Ranks, "__init__", asked)
    code, told = start(tmp_path, leaves_when_asked, capfd)
    assert code == 75
    assert told[-1] == {"kind": "end", "ending": "requeue", "step": 3}


@pytest.mark.usefixtures("own_signals", "open_stdin")
def test_a_rank_that_dies_is_named_and_all_are_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, told = start(tmp_path, dies_once, capfd)
    assert code == 0
    (restart,) = (line for line in told if line["kind"] == "restart")
    assert (restart["rank"], restart["reason"], restart["step"]) == (1, "sigkill", 1)
    assert [line["attempt"] for line in told if line["kind"] == "worker"] == [0, 0, 1, 1]
    assert told[-1] == {"kind": "end", "ending": "finished", "step": 2}


@pytest.mark.usefixtures("own_signals", "open_stdin")
def test_a_failure_that_would_come_again_is_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, told = start(tmp_path, fails_by_its_settings, capfd)
    assert code == ConfigError.exit_code
    assert (told[-1]["kind"], told[-1]["hint"]) == ("failed", "take 4")
    assert "batch_size 3 is odd" in told[-1]["reason"]


def test_ranks_of_a_second_node_have_their_numbers_in_the_job() -> None:
    assert list(Placement(world=8, first_rank=4, local_world=4, interface="eth0").ranks) == [4, 5, 6, 7]


def test_the_wait_for_a_rank_that_nothing_ends_has_an_end() -> None:
    with subprocess.Popen(["sleep", "600"]) as stays, subprocess.Popen(["true"]) as ends:
        pids = {0: ends.pid, 3: stays.pid}
        assert still_there(pids, patience_s=0.2) == [3]
        stays.kill()
        assert still_there(pids, patience_s=600) == []
    assert still_there(pids, patience_s=600) == [], "their ends were taken note of"


def test_a_rank_that_nothing_ends_is_fatal_and_named_with_what_came_before() -> None:
    failure = _unkillable(3, after=Failure(1, "sigkill", "ended by SIGKILL"))
    assert failure.is_fatal
    assert "rank 3 failed first" in failure.sentence()
    assert "rank 1 failed first: ended by SIGKILL" in failure.sentence()

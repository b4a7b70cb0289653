"""What a supervisor does with ranks that do not end."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

from rsc.cluster.supervise.exits import still_there
from rsc.cluster.supervise.failures import Failure
from rsc.cluster.supervise.supervisor import Supervisor, _unkillable, main


@pytest.fixture
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a supervisor changes of its process is as before after the test."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    loggers = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    levels = [logger.level for logger in loggers]
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM")
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("own_signals")
def test_a_sigterm_while_workers_are_forked_asks_for_an_end_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch elastic would put handlers in place that raise, before it forks the first worker."""

    def start_and_be_asked(supervisor: Supervisor) -> int:
        context = start_processes(
            "rank", int, args={0: ()}, envs={0: {}}, logs_specs=DefaultLogsSpecs(), start_method="fork"
        )
        os.kill(os.getpid(), signal.SIGTERM)
        context.wait(period=0.02)
        return int(supervisor.board.stop_requested)

    monkeypatch.setattr(Supervisor, "run", start_and_be_asked)
    job = {"run": str(tmp_path), "data": "", "recipe": {"train": {}}, "workers": 1, "socket": ""}
    assert main(json.dumps(job)) == 1


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

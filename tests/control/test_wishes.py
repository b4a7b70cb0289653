"""What the signals of a person, a scheduler and a lost terminal become."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rsc.control.wishes import CONTROLLER_LOG, Hangup, Wishes
from rsc.runs.folder import RunFolder
from tests.conftest import FakeClock

HUNG_UP = """
import os, signal, sys
from pathlib import Path
from rsc.control.wishes import Hangup, Wishes
from rsc.runs.folder import RunFolder

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup
with Wishes(Hangup(RunFolder(Path(sys.argv[1])), sys.argv[2])) as wishes:
    os.kill(os.getpid(), signal.SIGHUP)
    print("after the loss", flush=True)
os._exit(10 + wishes.stop_requested)
"""


class Supervisor:
    def __init__(self) -> None:
        self.stdin = io.StringIO()


@pytest.fixture
def run(tmp_path: Path, clock: FakeClock) -> RunFolder:
    return RunFolder.create(tmp_path, recipe="language", steps=3, lineage={}, clock=clock)


@pytest.mark.parametrize(("wish", "code"), [("checkpoint", 11), ("continue", 10)])
def test_a_lost_terminal_checkpoints_or_goes_on_and_words_go_to_a_file(
    run: RunFolder, wish: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG_UP, str(run.path), wish], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert (run.path / CONTROLLER_LOG).read_text() == "after the loss\n"


def test_where_hangups_are_ignored_they_stay_so(run: RunFolder) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Wishes(Hangup(run, "checkpoint")) as wishes:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not wishes.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_request_to_stop_reaches_a_supervisor_that_starts_later(number: int) -> None:
    supervisor: Any = Supervisor()
    with Wishes() as wishes:
        os.kill(os.getpid(), number)
        wishes.attach(supervisor)
    assert supervisor.stdin.getvalue() == "stop\n"


def test_another_thread_than_the_main_one_can_train(run: RunFolder) -> None:
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with Wishes(Hangup(run, "checkpoint")):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failed == []

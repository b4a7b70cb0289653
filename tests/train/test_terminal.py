"""A run and its terminal: detached, followed, compared, and left alone when the terminal is lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from rsc.control.wishes import CONTROLLER_LOG
from rsc.runs.folder import RunFolder

SLOW = ("parallel.workers=1", "train.fail_at=rank=0,step=1,kind=slow")
"""0.2 s a step: what a test does to the run finds it at work."""


def take_terminal() -> None:
    """Make standard input this process's terminal; also where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def end_of(run: RunFolder) -> str:
    """The state it ends in, after its controller has left."""
    while run.holder() is not None or run.record().state in ("created", "running"):
        time.sleep(0.05)
    return str(run.record().state)


def test_a_detached_run_is_followed_to_the_losses_of_any_other(rsc_with_text: Any) -> None:
    started = rsc_with_text.train(*SLOW, "--detach")
    run = RunFolder(Path(started["path"]))
    controller = run.holder()
    assert controller is not None
    assert os.getsid(controller) == controller  # of no terminal's session
    assert f"rsc runs follow {run.id}" in started["stderr"]

    followed = rsc_with_text.run("runs", "follow", run.id, "--json")
    assert (followed["id"], followed["state"], followed["step"]) == (run.id, "finished", 12)
    assert "step 12/12" in followed["stderr"]
    again = rsc_with_text.run("runs", "follow", run.id, expect=2)
    assert f"rsc runs show {run.id}" in again["stderr"]

    plain = rsc_with_text.train("parallel.workers=1")["run"]
    found = rsc_with_text.run("runs", "compare", run.id, plain, "--json")
    assert (found["common_steps"], found["equal_steps"]) == (12, 12)
    assert list(found["settings"]) == ["train.fail_at"]
    other = rsc_with_text.train("parallel.workers=1", "train.seed=1", "train.steps=3")["run"]
    found = rsc_with_text.run("runs", "compare", plain, other, "--json")
    assert (found["common_steps"], found["equal_steps"]) == (3, 0)
    assert found["settings"] == {"train.steps": [12, 3], "train.seed": [0, 1]}
    assert found["figures"]["state"] == ["finished", "finished"]


def test_a_detached_run_that_cannot_start_is_an_error_of_the_command(rsc_with_text: Any) -> None:
    done = rsc_with_text.train("data.name=nothing", "--detach", expect=2)
    assert "run" not in done
    assert "nothing" in done["stderr"]


def test_stopping_a_detached_run_checkpoints_it(rsc_with_text: Any) -> None:
    started = rsc_with_text.train(*SLOW, "train.steps=200", "--detach")
    run = RunFolder(Path(started["path"]))
    rsc_with_text.run("runs", "stop", run.id)
    assert end_of(run) == "requeue"
    assert rsc_with_text.run("runs", "rm", run.id, "--yes", "--json")["run"] == run.id


def test_leaving_a_run_that_is_followed_leaves_it_alone(rsc_with_text: Any) -> None:
    started = rsc_with_text.train(*SLOW, "--detach")
    run = RunFolder(Path(started["path"]))
    watcher = rsc_with_text.start("runs", "follow", run.id)
    while not watcher.stderr.readline().startswith("step"):
        assert watcher.poll() is None
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate()
    assert (watcher.returncode, "Traceback" in err) == (130, False)
    assert end_of(run) == "finished"


@pytest.mark.parametrize(("wish", "state"), [("checkpoint", "requeue"), ("continue", "finished")])
def test_a_terminal_that_is_closed_does_what_the_recipe_says(
    rsc_with_text: Any, wish: str, state: str
) -> None:
    before = set(rsc_with_text.workspace.runs.iterdir())
    master, terminal = os.openpty()
    command = rsc_with_text.train_command(*SLOW, "train.steps=30", f"train.on_hangup={wish}")
    process = subprocess.Popen(
        [sys.executable, "-m", "rsc", *command],
        env={**os.environ, "RSC_HOME": str(rsc_with_text.workspace.root)},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(terminal)
    said = b""
    while b"step " not in said:
        said += os.read(master, 4096)
    (folder,) = set(rsc_with_text.workspace.runs.iterdir()) - before
    os.close(master)
    assert process.wait() == {"requeue": 75, "finished": 0}[state]
    assert end_of(RunFolder(folder)) == state
    log = (folder / CONTROLLER_LOG).read_text()
    assert "Traceback" not in log
    assert json.loads(log[log.index("{") : log.rindex("}") + 1])["state"] == state

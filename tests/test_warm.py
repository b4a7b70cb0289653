"""A forked command is to its caller what a fresh process is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import ROOT, Warm, warm

PROBE = """
import os, sys
print(os.getcwd(), sorted(name for name in os.environ if name.startswith("PROBE")), sys.argv[1:], sys.path[0])
print("told", file=sys.stderr)
raise SystemExit(int(sys.argv[1]))
"""


@pytest.fixture
def server() -> Warm:
    return warm()


def test_folder_environment_arguments_streams_and_code(server: Warm, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    environment = {**os.environ, "PROBE_A": "1"}
    ours = server.run("probe", "7", "b c", environment=environment, folder=tmp_path)
    command = [sys.executable, "-m", "probe", "7", "b c"]
    fresh = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert fresh.returncode == 7
    assert (ours.returncode, ours.stdout, ours.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_what_it_throws_is_told_with_code_1(server: Warm, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('so it goes')")
    done = server.run("broken", environment=os.environ, folder=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: so it goes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_as_it_ends_a_process(server: Warm, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "waiting.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)")
    command = server.start("waiting", environment=os.environ, folder=tmp_path)
    assert command.stdout.readline() == "here\n"
    assert command.poll() is None
    command.send_signal(number)
    _, err = command.communicate()
    assert command.poll() == (1 if number == signal.SIGINT else -number)
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)


def test_two_run_at_a_time(server: Warm) -> None:
    first = server.start("this", environment=os.environ)
    second = server.start("rsc", "no such verb", environment=os.environ, folder=ROOT)
    assert "there is no command" in second.communicate()[1]
    assert "Zen" in first.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 2)


def test_a_command_that_does_not_end_is_an_error(server: Warm, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text("import time\ntime.sleep(600)")
    command = server.start("waiting", environment=os.environ, folder=tmp_path)
    with pytest.raises(TimeoutError):
        command.communicate(timeout=0.1)
    assert command.wait() == -signal.SIGKILL

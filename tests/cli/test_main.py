"""The front door: exit codes, nearest command, nothing heavy imported, errors without tracebacks."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from rsc import errors
from rsc.cli import main as front
from rsc.config import Workspace

MODEL_VERBS = {"eval", "generate", "predict"}
"""They open a model, and may import torch before they parse."""

LIGHT = ["--help", "--version", *(f"{name} --help" for name in front.VERBS if name not in MODEL_VERBS)]


def rsc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rsc", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("line", LIGHT)
def test_help_of_every_command_works_without_torch(line: str) -> None:
    code = (
        "import sys\nfrom rsc.cli.main import run\ncode = run(sys.argv[1:])\n"
        "assert code == 0, code\nassert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_command_names_the_nearest() -> None:
    done = rsc("trian")
    assert done.returncode == 2
    assert done.stdout == ""
    assert 'did you mean "train"?' in done.stderr


def test_every_exit_code_of_the_tree_is_in_the_help() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    text = rsc("--help").stdout.replace(",", " ").split()
    assert {str(code) for code in codes} <= set(text)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.KeyUnavailable("the key of posts was destroyed"), 3),
        (errors.ConfigError("no"), 2),
        (errors.RequeueMe("saved"), 75),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (OSError(errno.EACCES, "Permission denied", "secret.key"), 2),
        (ZeroDivisionError("division by zero"), 1),
    ],
)
def test_what_is_raised_decides_the_exit_code(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise raised

    monkeypatch.setattr(front, "_dispatch", fail)
    assert front.run([]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err


def test_doctor_speaks_json_and_finds_no_fault_here(workspace: Workspace) -> None:
    import json

    done = rsc("doctor", "--json")
    assert done.returncode == 0, done.stderr
    names = {check["name"] for check in json.loads(done.stdout)["checks"]}
    assert {"python", "torch", "cpu", "aes", "disk", "file system", "isolation", "slurm"} <= names

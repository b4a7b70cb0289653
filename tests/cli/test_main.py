"""The front door: exit codes, nearest command, nothing heavy imported, errors without tracebacks."""

from __future__ import annotations

import errno
import os
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


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("train language data.name=x --steps 20", "train.steps=..."),
        ("train language data.name=x --batch-size 20", "train.batch_size=..."),
        ("train language data.name=x --npro 2", "did you mean --nproc?"),
        ("train language data.name=x steps=20", "did you mean train.steps?"),
        ("train language data.name=x train.num_layers=2", "did you mean model.trunk.num_layers?"),
        ("train language data.name=x model.trunk.rope_scaling=4", "model.trunk.rope_scaling.factor=..."),
        ("train", "rsc train --help"),
        ("data shw posts", "did you mean 'show'?"),
    ],
)
def test_a_line_that_is_nearly_right_gets_the_right_one(
    line: str, hint: str, capsys: pytest.CaptureFixture[str], workspace: Workspace
) -> None:
    assert front.run(line.split()) == errors.ConfigError.exit_code
    said = capsys.readouterr()
    assert hint.lower() in said.err.lower()
    assert (said.out, "defect" in said.err) == ("", False)


@pytest.mark.parametrize("line", ["recipes ls --json", "recipes cat language", "doctor --json"])
def test_a_reader_that_leaves_is_no_failure(line: str, workspace: Workspace) -> None:
    command = [sys.executable, "-m", "rsc", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_what_stdout_cannot_take_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from rsc.cli.output import emit; emit({}, as_json=False, text='caf\\xe9 \\u2192')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout == b"caf\\xe9 \\u2192\n"

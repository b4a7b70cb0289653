"""Folders of keys stay hidden, wherever Python, the system or the workspace lie; tried in a real sandbox."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from test_sandbox import method, run

from rsc.cluster.sandbox import mounts
from rsc.cluster.sandbox.mounts import plan_view
from rsc.errors import IsolationRefused

__all__ = ["method"]
SECRETS = ("keys", "identities", "audit")
READ = """
import pathlib, sys
import rsc.train.node
home, *others = map(pathlib.Path, sys.argv[1:])
for path in [*home.rglob("*.secret"), *others]:
    print(path, path.exists() and path.read_text())
"""


@pytest.fixture
def home(tmp_path) -> Path:
    """A home folder with a workspace, a login key and a module of the user's."""
    home = tmp_path / "home"
    for folder in SECRETS:
        (home / ".rsc" / folder).mkdir(parents=True)
        (home / ".rsc" / folder / "a.secret").write_text("the secret")
    (home / ".rsc/runs/one").mkdir(parents=True)
    (home / ".ssh").mkdir()
    (home / ".ssh/id.secret").write_text("the secret")
    (home / "mine").mkdir()
    (home / "mine/__init__.py").write_text("NAME = 'mine'")
    (home / "single.py").write_text("NAME = 'single'")
    return home


def options(home: Path) -> dict:
    hidden = [home / ".rsc" / name for name in SECRETS]
    return {"level": "required", "writable": [home / ".rsc/runs/one"], "hidden": hidden}


def assert_no_secret(home: Path, method: str) -> None:
    done = run([sys.executable, "-c", READ, str(home)], methods=(method,), **options(home))
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout


def test_python_started_in_the_home_folder(method, home, monkeypatch):
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("HOME", str(home))
    assert_no_secret(home, method)
    code = "import mine, single; print(mine.NAME, single.NAME)"
    environment = {**mounts.os.environ, "PYTHONPATH": str(home)}
    done = run([sys.executable, "-c", code], methods=(method,), environment=environment, **options(home))
    assert done.stdout == "mine single\n", done.stderr


def test_an_import_path_above_the_workspace(method, home, monkeypatch):
    monkeypatch.syspath_prepend(str(home.parent))
    assert_no_secret(home, method)


def test_the_home_folder_on_the_import_path_and_the_workspace_elsewhere(method, home, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(home / ".rsc", elsewhere / ".rsc")
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("HOME", str(home))
    command = [sys.executable, "-c", READ, str(home), str(home / ".ssh/id.secret")]
    done = run(command, methods=(method,), **options(elsewhere))
    assert done.stdout == f"{home}/.ssh/id.secret False\n", done.stderr


@pytest.mark.parametrize("linked", [False, True])
def test_a_workspace_in_a_system_folder(method, home, tmp_path, monkeypatch, linked):
    system = home
    if linked:
        system = tmp_path / "link"
        system.symlink_to(home)
    monkeypatch.setattr(mounts, "SYSTEM", (*mounts.SYSTEM, str(system)))
    command = [sys.executable, "-c", READ, str(system / ".rsc"), str(system / ".rsc/keys/a.secret")]
    done = run(command, methods=(method,), **options(home))
    assert done.stdout == f"{system}/.rsc/keys/a.secret False\n", done.stderr


def test_a_python_above_the_workspace(method, home, monkeypatch):
    monkeypatch.setattr(sys, "exec_prefix", str(home / ".rsc"))
    assert_no_secret(home, method)


def test_a_key_folder_behind_a_link(method, home, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(home / ".rsc/keys", elsewhere)
    (home / ".rsc/keys").symlink_to(elsewhere)
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    done = run([sys.executable, "-c", READ, str(elsewhere)], methods=(method,), **options(home))
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout


@pytest.mark.parametrize("shown", [".", ".rsc", ".rsc/keys", ".rsc/keys/data"])
def test_a_path_to_show_above_or_inside_a_hidden_one_is_refused(home, shown):
    (home / ".rsc/keys/data").mkdir()
    for kind in ("readable", "writable"):
        paths = {"readable": [], "writable": [], kind: [home / shown]}
        with pytest.raises(IsolationRefused, match=r"keys must not be|identities must not be"):
            plan_view(hidden=[home / ".rsc" / name for name in SECRETS], **paths)

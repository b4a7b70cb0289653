"""`./rsc` in a fresh checkout, with real pip and made-up wheels: what it leaves behind and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from .wheels import make_wheel, pip_wheel

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys, torch; print(torch.__version__, *sys.argv[1:])\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for everything that pyproject.toml names, a torch, and pip."""
    folder = tmp_path_factory.mktemp("all of it") / "wheels"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name, version = re.match(r"([\w-]+)(?:\[.*\])?(?:>=([\d.]+))?", requirement).groups()
        if name not in ("torch", "openrsc"):
            make_wheel(folder, name, version or "1")
    for extra in project["optional-dependencies"]["test"][-1].partition("[")[2].rstrip("]").split(","):
        for requirement in project["optional-dependencies"][extra]:
            make_wheel(folder, *re.match(r"([\w-]+)>=([\d.]+)", requirement).groups())
    make_wheel(folder, "torch", "2.13.0+cpu")
    pip_wheel(folder)
    return folder


@pytest.fixture(scope="module")
def python_without_ensurepip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like Debian's python3 without python3-venv: links to the standard library, less one package."""
    prefix = tmp_path_factory.mktemp("python")
    stdlib = Path(sysconfig.get_path("stdlib"))
    copy = prefix / "lib" / stdlib.name
    copy.mkdir(parents=True)
    (prefix / "bin").mkdir()
    for path in stdlib.iterdir():
        if path.name not in ("ensurepip", "site-packages", "dist-packages"):
            (copy / path.name).symlink_to(path)
    (copy / "site-packages").mkdir()
    python = prefix / "bin" / stdlib.name
    shutil.copy2(Path(sys._base_executable).resolve(), python)
    return python


class Checkout:
    """The real script and the real `rsc.setup`, with a program of one line in place of all the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "src" / "rsc"
        package.mkdir(parents=True)
        shutil.copytree(
            ROOT / "src" / "rsc" / "setup", package / "setup", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("rsc", "pyproject.toml", "src/rsc/__init__.py", "src/rsc/errors.py"):
            shutil.copy2(ROOT / name, folder / name)
        for module in ("train/loop.py", "cli/main.py"):  # what the set-up imports at its end
            (package / module).parent.mkdir()
            (package / module).write_text("def main(): ...\n")
        (package / "__main__.py").write_text(PROGRAM)
        (folder / "tests").mkdir()
        (folder / "tests" / "run.py").write_text(PROGRAM)

    def rsc(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "no home"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            **settings,
        }
        command = [str(self.folder / "rsc"), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=self.folder.parent
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


def test_a_folder_of_wheels_sets_up_once_and_keeps_its_torch(
    checkout: Checkout, wheels: Path, tmp_path: Path
) -> None:
    """Path with spaces, a half-made environment, a home that cannot be written, no index, no ensurepip."""
    venv = checkout.folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "rsc-unfinished").touch()
    (venv / "bin" / "python").symlink_to("/nowhere/python3.11")
    first = checkout.rsc("train", "a b", RSC_WHEELS=str(wheels))
    assert (first.returncode, first.stdout) == (0, "2.13.0+cpu train a b\n"), first.stderr
    assert not (venv / "rsc-unfinished").exists()
    log = (venv / "rsc-setup.log").stat().st_size

    second = checkout.rsc("train", RSC_WHEELS=str(wheels))
    assert (second.stdout, second.stderr) == ("2.13.0+cpu train\n", "")
    assert (venv / "rsc-setup.log").stat().st_size == log, "the second start ran pip"

    newer = tmp_path / "newer"
    shutil.copytree(wheels, newer)
    make_wheel(newer, "torch", "2.14.0+cpu")
    make_wheel(newer, "pytest", "99", requires=["torch>=2.11"])
    tests = checkout.rsc("test", RSC_WHEELS=str(newer))
    assert (tests.returncode, tests.stdout) == (0, "2.13.0+cpu\n"), tests.stderr
    assert subprocess.run([venv / "bin" / "rsc"], capture_output=True).returncode != 127, (
        "no `rsc` in the environment"
    )


def test_without_ensurepip_pip_comes_out_of_the_folder_of_wheels(
    checkout: Checkout, wheels: Path, python_without_ensurepip: Path
) -> None:
    done = checkout.rsc("doctor", RSC_WHEELS=str(wheels), RSC_PYTHON=str(python_without_ensurepip))
    assert (done.returncode, done.stdout) == (0, "2.13.0+cpu doctor\n"), done.stderr


def test_without_ensurepip_and_pip_one_sentence_says_what_to_install(
    checkout: Checkout, python_without_ensurepip: Path
) -> None:
    done = checkout.rsc("doctor", RSC_PYTHON=str(python_without_ensurepip))
    assert done.returncode == 4
    assert "neither ensurepip nor pip" in done.stderr
    assert f"apt install python3.{sys.version_info.minor}-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_torch_that_the_interpreter_has_is_used(
    checkout: Checkout, wheels: Path, python_without_ensurepip: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "python"
    shutil.copytree(python_without_ensurepip.parents[1], prefix, symlinks=True)
    (site,) = prefix.glob("lib/*/site-packages")
    shutil.unpack_archive(make_wheel(tmp_path, "torch", "2.12.0"), site, "zip")
    done = checkout.rsc(
        "doctor", RSC_WHEELS=str(wheels), RSC_PYTHON=str(prefix / "bin" / python_without_ensurepip.name)
    )
    assert (done.returncode, done.stdout) == (0, "2.12.0 doctor\n"), done.stderr


def test_a_set_up_without_torch_installs_the_rest(checkout: Checkout, wheels: Path) -> None:
    (checkout.folder / "src" / "rsc" / "__main__.py").write_text(
        "import numpy, importlib.util as u; print(u.find_spec('torch'))"
    )
    done = checkout.rsc("data", RSC_WHEELS=str(wheels), RSC_TORCH="skip")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"RSC_VENV": "/dev/null/venv"}, "cannot make the environment /dev/null/venv: Not a directory"),
        ({"RSC_VENV": str(ROOT / "docs")}, "holds other files"),
        ({"RSC_PYTHON": "/bin/cat"}, "RSC_PYTHON=/bin/cat is not a working Python 3.11 or newer"),
        ({"RSC_WHEELS": "/nowhere"}, "RSC_WHEELS=/nowhere is no folder with wheels"),
        ({"PATH": "/nowhere"}, "no Python 3.11 or newer found"),
    ],
)
def test_what_cannot_be_set_up_is_one_sentence_and_a_hint(
    checkout: Checkout, settings: dict[str, str], sentence: str
) -> None:
    if "PATH" in settings:
        tools = checkout.folder / "tools"
        tools.mkdir()
        for name in ("dirname", "cat", "cksum", "sh"):
            (tools / name).symlink_to(shutil.which(name))
        settings = {"PATH": str(tools)}
    done = checkout.rsc("doctor", **settings)
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert [line for line in lines if sentence in line]
    assert lines[-1].startswith("rsc: hint: ")
    assert "Traceback" not in done.stderr

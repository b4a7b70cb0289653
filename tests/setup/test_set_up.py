"""`./rsc` in a fresh checkout, with real pip and made-up wheels: what it leaves behind and what it prints."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from rsc.setup.bundle import Target, collect
from rsc.setup.checkout import write_wheel

from .conftest import ROOT, Checkout
from .wheels import make_wheel


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


def test_a_bundle_sets_up_once_without_a_network_and_its_torch_stays(
    checkout: Checkout, wheels: Path, tmp_path: Path
) -> None:
    """Path with spaces, a half-made environment, a home that is not there; the second start runs no pip."""
    bundle = tmp_path / "a bundle"
    environment = {**checkout.environment, "PIP_FIND_LINKS": wheels.as_uri()}
    here = Target(platform=None, python_version=None)
    collect(checkout.folder, bundle, target=here, extras=["test"], environment=environment, say=print)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=bundle, check=True)

    venv = checkout.folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "rsc-unfinished").touch()
    (venv / "bin" / "python").symlink_to("/nowhere/python3.11")
    first = checkout.rsc("train", "a b", before=without_network(), RSC_WHEELS=str(bundle))
    assert (first.returncode, first.stdout) == (0, "2.13.0+cpu train a b\n"), first.stderr
    assert not (venv / "rsc-unfinished").exists()
    log = (venv / "rsc-setup.log").stat().st_size

    link = tmp_path / "link to rsc"
    link.symlink_to(checkout.folder / "rsc")
    second = checkout.rsc("train", script=link, RSC_WHEELS=str(bundle))
    assert (second.stdout, second.stderr) == ("2.13.0+cpu train\n", "")
    assert (venv / "rsc-setup.log").stat().st_size == log, "the second start ran pip"

    make_wheel(bundle, "torch", "2.14.0+cpu")
    make_wheel(bundle, "pytest", "99", requires=["torch>=2.11"])
    tests = checkout.rsc("test", before=without_network(), RSC_WHEELS=str(bundle))
    assert (tests.returncode, tests.stdout) == (0, "2.13.0+cpu\n"), tests.stderr
    assert (venv / "bin" / "rsc").exists()


def without_network() -> list[str]:
    """Words before a command that run it in an empty network namespace, where users may make one."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    can = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    return alone if can else []


def test_without_ensurepip_the_folder_gives_pip_and_the_interpreter_its_torch(
    checkout: Checkout, wheels: Path, python_without_ensurepip: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "a python"
    shutil.copytree(python_without_ensurepip.parents[1], prefix, symlinks=True)
    (site,) = prefix.glob("lib/*/site-packages")
    shutil.unpack_archive(make_wheel(tmp_path, "torch", "2.12.0"), site, "zip")
    python = prefix / "bin" / python_without_ensurepip.name
    done = checkout.rsc("doctor", RSC_WHEELS=str(wheels), RSC_PYTHON=str(python))
    assert (done.returncode, done.stdout) == (0, "2.12.0 doctor\n"), done.stderr


def test_without_ensurepip_and_pip_one_sentence_says_what_to_install(
    checkout: Checkout, python_without_ensurepip: Path
) -> None:
    done = checkout.rsc("doctor", RSC_PYTHON=str(python_without_ensurepip))
    assert done.returncode == 4
    assert "neither ensurepip nor pip" in done.stderr
    assert f"apt install python3.{sys.version_info.minor}-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_set_up_without_torch_does_not_ask_for_one(tmp_path: Path) -> None:
    def needs(with_torch: bool) -> list[str]:
        with zipfile.ZipFile(write_wheel(ROOT, tmp_path, with_torch=with_torch)) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
            return wheel.read(name).decode().splitlines()

    assert [line for line in needs(True) if line not in needs(False)] == ["Requires-Dist: torch>=2.11"]


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

"""`rsc bundle` for another machine, and where it fails. test_set_up.py sets up from one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rsc.errors import ResourceError
from rsc.setup.bundle import Target, collect

from .conftest import Checkout, Machine
from .wheels import make_wheel

HERE = Target(platform=None, python_version=None)


def names(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.glob("*.whl")}


def test_a_bundle_for_another_platform_has_its_wheels_and_follows_its_markers(
    machine: Machine, checkout: Checkout, wheels: Path, tmp_path: Path
) -> None:
    offered = tmp_path / "offered"
    shutil.copytree(wheels, offered)
    (offered / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    apart = [
        "metal; sys_platform == 'darwin'",
        "triton; sys_platform == 'linux'",
        "late; python_version >= '3.13'",
    ]
    make_wheel(offered, "torch", "2.13.0", tag="cp313-cp313-macosx_11_0_arm64", requires=apart)
    make_wheel(offered, "torch", "2.14.0", tag="cp313-cp313-manylinux_2_28_x86_64", requires=apart)
    make_wheel(offered, "metal", "1", tag="cp313-cp313-macosx_11_0_arm64")
    make_wheel(offered, "late", "1")
    machine.settings = {"PIP_FIND_LINKS": offered.as_uri(), "PIP_NO_INDEX": "1"}
    mac = Target(platform="macos-arm64", python_version="3.13")
    collect(
        checkout.folder, tmp_path / "mac", target=mac, extras=[], environment=machine.environment, say=print
    )
    assert {"metal", "late", "openrsc", "numpy"} <= names(tmp_path / "mac")
    assert not {"triton", "hyperscan"} & names(tmp_path / "mac")
    assert [path.name for path in (tmp_path / "mac").glob("torch-*")] == [
        "torch-2.13.0-cp313-cp313-macosx_11_0_arm64.whl"
    ]


def test_a_wheel_that_cannot_be_had_is_named(
    machine: Machine, checkout: Checkout, wheels: Path, tmp_path: Path
) -> None:
    offered = tmp_path / "offered"
    shutil.copytree(wheels, offered, ignore=shutil.ignore_patterns("tomlkit-*"))
    machine.settings = {"PIP_FIND_LINKS": offered.as_uri(), "PIP_NO_INDEX": "1"}
    with pytest.raises(ResourceError, match="tomlkit"):
        collect(
            checkout.folder,
            tmp_path / "out",
            target=HERE,
            extras=[],
            environment=machine.environment,
            say=print,
        )


def test_an_unknown_platform_is_refused_with_the_nearest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rsc", "bundle", "x", "--platform", "linux-arm64"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "linux-aarch64" in done.stderr
    assert not Path("x").exists()

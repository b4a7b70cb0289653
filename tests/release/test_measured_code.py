"""Keys go to measured code: the agent reads the files itself, and a policy can name what may run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rsc.errors import GateRefused
from rsc.release.agent import measured_code
from rsc.release.agent.measured_code import MeasuredCode, bytecode_folders, measure
from rsc.release.agent.request import KeyRequest
from rsc.review.policy import Policy

TRAIN = KeyRequest("train", "ada", data="posts")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "rsc"
    (root / "train").mkdir(parents=True)
    (root / "train/loop.py").write_text("steps = 1\n")
    (root / "train/recipe.toml").write_text("steps = 1\n")
    (root / "train/__pycache__").mkdir()
    (root / "train/__pycache__/loop.cpython-311.pyc").write_bytes(b"code")
    return root


def rewrite(path: Path, content: bytes) -> None:
    """With the size and time that it had: what a planted file would have."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_and_put_back(path: Path) -> None:
    rewrite(path, b"steps = 2\n")
    rewrite(path, b"steps = 1\n")


def replace_by_a_copy(path: Path) -> None:
    copy = shutil.copy2(path, path.with_suffix(".x"))
    Path(copy).replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "changed": lambda root: rewrite(root / "train/loop.py", b"steps = 2\n"),
    "changed and put back": lambda root: change_and_put_back(root / "train/loop.py"),
    "settings": lambda root: rewrite(root / "train/recipe.toml", b"steps = 9\n"),
    "new module": lambda root: (root / "os.py").write_text("") and None,
    "removed": lambda root: (root / "train/loop.py").unlink(),
    "native": lambda root: (root / "train/loop.so").write_bytes(b"\x7fELF") and None,
    "replaced": lambda root: replace_by_a_copy(root / "train/loop.py"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_the_code_is_seen(package: Path, change: str) -> None:
    measured = measure(package)
    assert measured.is_unchanged()
    CHANGES[change](package)
    later = MeasuredCode(measured.source, measured.bytecode, package, measured.stamps)
    assert not later.is_unchanged()


def test_a_look_holds_for_ten_seconds(package: Path) -> None:
    now = [0.0]
    measured = measure(package)
    measured.elapsed_s = lambda: now[0]
    assert measured.is_unchanged()
    CHANGES["changed"](package)
    now[0] = measured_code._LOOK_S + 1
    assert not measured.is_unchanged()


def test_planted_bytecode_is_another_measurement_and_its_folders_are_named(package: Path) -> None:
    before = measure(package)
    rewrite(package / "train/__pycache__/loop.cpython-311.pyc", b"evil")
    after = measure(package)
    assert after.source == before.source
    assert after.bytecode != before.bytecode
    assert bytecode_folders(package) == [package / "train/__pycache__"]


def test_a_policy_that_pins_code_asks_for_isolation() -> None:
    with pytest.raises(ValueError, match="code needs isolation"):
        Policy(code=("0" * 64,))
    with pytest.raises(ValueError, match="pattern"):
        Policy(code=("latest",), isolation="required")
    assert Policy(code=("0" * 64,), isolation="required").code


@pytest.mark.parametrize("measured", ["none", "other", "changed"])
def test_other_code_gets_no_key(house, package: Path, measured: str) -> None:
    pinned = measure(package).source
    house.add(code=(pinned,), isolation="required")
    house.approve()
    agent = house.new_agent()
    if measured != "none":
        if measured == "other":
            CHANGES["changed"](package)
        agent._code = measure(package)
        if measured == "changed":
            CHANGES["new module"](package)
    with pytest.raises(GateRefused, match="releases keys to the code"):
        agent.release(TRAIN)
    house.agent.release(KeyRequest("review", "ada", data="posts")).close()


def test_the_pinned_code_passes_this_rule_and_is_in_the_log(house, package: Path) -> None:
    measured = measure(package)
    house.add()
    house.approve()
    agent = house.new_agent()
    agent._code = measured
    agent.release(TRAIN).close()
    assert house.logged("key_released")[-1]["code"] == measured.source
    house.add("strict", code=(measured.source,), isolation="required")
    house.approve("strict")
    with pytest.raises(GateRefused, match="requires isolated workers"):  # rule 4, behind this one
        agent.release(KeyRequest("train", "ada", data="strict"))

"""The command line as a user has it: `rsc` in a process and a workspace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.warm import Command, warm

ADDRESS = "planted.person@mail.example.org"

TINY = [
    "train.steps=6",
    "train.batch_size=4",
    "train.precision=fp32",
    "data.sequence_length=32",
    "model.trunk.num_layers=1",
    "model.trunk.width=32",
    "model.trunk.num_heads=2",
    "model.trunk.mlp_width=64",
]
"""Overrides that make the language recipe a toy: seconds, not minutes."""


@dataclass(frozen=True)
class Rsc:
    """Runs `rsc ...` in one workspace."""

    home: Path
    cwd: Path

    def __call__(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.try_(*arguments)
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "defect of RSC" not in done.stderr
        return done

    def json(self, *arguments: str) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self(*arguments, "--json").stdout)
        return result

    def try_(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, whatever its exit code."""
        return warm().run("rsc", *arguments, **self.place())

    def start(self, *arguments: str) -> Command:
        """The same without waiting."""
        return warm().start("rsc", *arguments, **self.place())

    def place(self) -> dict[str, Any]:
        return {"folder": self.cwd, "environment": {**os.environ, "RSC_HOME": str(self.home)}}

    def copy(self, target: Path) -> Rsc:
        """The same workspace again, to be harmed."""
        shutil.copytree(self.home, target / "home", symlinks=True)
        return Rsc(home=target / "home", cwd=target)


@pytest.fixture
def rsc(tmp_path: Path) -> Rsc:
    """An empty workspace."""
    return Rsc(home=tmp_path / "home", cwd=tmp_path)


def write_posts(path: Path) -> Path:
    """Two hundred short posts with an e-mail address in each twentieth."""
    texts = [
        f"post number {number} about the weather, the sea and the long way home" for number in range(200)
    ]
    posts = [{"text": text + f", write to {ADDRESS}" * (n % 20 == 0)} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(post) + "\n" for post in posts))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Rsc:
    """A workspace with `posts` imported, reviewed and approved, and one toy run. Copy it to change it."""
    folder = tmp_path_factory.mktemp("trained")
    rsc = Rsc(home=folder / "home", cwd=folder)
    rsc("data", "import", str(write_posts(folder / "posts.jsonl")), "--name", "posts")
    rsc("data", "approve", "posts", "--note", "a test")
    rsc("train", "language", "data.name=posts", *TINY)
    rsc("eval", "last")
    return rsc

"""A pip that sees only what a test gives it: no configuration of this machine, no network, no cache."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rsc.setup.pip import Pip
from rsc.setup.torch_install import TorchInstaller

from .wheels import make_hatchling, make_wheel, pip_wheel

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "openrsc"
requires-python = ">=3.11"
dependencies = [
    "torch>=2.11",
    "numpy>=2",
    "tomlkit>=0.13",
    "hyperscan>=0.7; sys_platform == 'linux' and platform_machine == 'x86_64'",
]

[project.optional-dependencies]
parquet = ["pyarrow>=8"]
test = ["pytest>=8", "openrsc[parquet]"]

[project.scripts]
rsc = "rsc.cli.main:main"
"""
"""Each kind of line of our own, and few of them: pip takes its time over every package."""
PROGRAM = "import sys, torch; print(torch.__version__, *sys.argv[1:])\n"


@dataclass
class Machine:
    """Where pip runs, what it is configured with, and what the person at it reads."""

    folder: Path
    cpu_index: str
    settings: dict[str, str] = field(default_factory=dict)
    has_gpu: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "PIP_CONFIG_FILE": os.devnull}
        return {**kept, "PIP_NO_CACHE_DIR": "1", "PIP_NO_COMPILE": "1", **self.settings}

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def install_torch(self, wanted: str = "") -> str | None:
        """The version that the set-up put here; its lines are in `lines`."""
        environment = {**self.environment, "PIP_TARGET": str(self.site)}
        pip = Pip(Path(sys.executable), environment, log=self.folder / "log")
        TorchInstaller(pip, self.lines.append, self.cpu_index, wants_gpu=self.has_gpu).install(wanted)
        found = [path.name for path in self.site.glob("torch-*.dist-info")]
        return found[0].removeprefix("torch-").removesuffix(".dist-info") if found else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Without a GPU, without an index, and with a PyTorch index that refuses connections."""
    folder = tmp_path / "with a space"
    folder.mkdir()
    return Machine(folder, cpu_index="http://127.0.0.1:9/whl/cpu", settings={"PIP_NO_INDEX": "1"})


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for everything that PYPROJECT names, a torch, and the tools of a bundle."""
    folder = tmp_path_factory.mktemp("all of it") / "wheels"
    for name in ("numpy", "tomlkit", "hyperscan", "pyarrow", "pytest", "editables"):
        make_wheel(folder, name, "9")
    make_wheel(folder, "torch", "2.13.0+cpu")
    make_hatchling(folder)
    pip_wheel(folder)
    return folder


class Checkout:
    """The real script and the real `rsc.setup`, with a program of one line in place of all the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "src" / "rsc"
        package.mkdir(parents=True)
        shutil.copytree(
            ROOT / "src" / "rsc" / "setup", package / "setup", ignore=shutil.ignore_patterns("__pycache__")
        )
        (folder / "pyproject.toml").write_text(PYPROJECT)
        for name in ("rsc", "src/rsc/__init__.py", "src/rsc/errors.py"):
            shutil.copy2(ROOT / name, folder / name)
        for module in ("train/loop.py", "cli/main.py"):  # what the set-up imports at its end
            (package / module).parent.mkdir()
            (package / module).write_text("def main(): ...\n")
        (package / "__main__.py").write_text(PROGRAM)
        (folder / "tests").mkdir()
        (folder / "tests" / "run.py").write_text(PROGRAM)

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.folder / "no home")
        return {"PATH": os.environ["PATH"], "HOME": home, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}

    def rsc(
        self, *arguments: str, before: Sequence[str] = (), script: Path | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script, or a link to it. `before` are the words of a command that runs it."""
        environment = {**self.environment, **settings}
        command = [*before, str(script or self.folder / "rsc"), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=self.folder.parent
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")

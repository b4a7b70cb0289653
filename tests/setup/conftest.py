"""A pip that sees only what a test gives it: no configuration of this machine, no network, no cache."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rsc.setup.pip import Pip
from rsc.setup.torch_install import TorchInstaller


@dataclass
class Machine:
    """Where pip runs, what it is configured with, and what the person at it reads."""

    folder: Path
    cpu_index: str
    settings: dict[str, str] = field(default_factory=dict)
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
        TorchInstaller(pip, self.cpu_index, self.lines.append).install(wanted)
        found = [path.name for path in self.site.glob("torch-*.dist-info")]
        return found[0].removeprefix("torch-").removesuffix(".dist-info") if found else None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Without a GPU, without an index, and with a PyTorch index that refuses connections."""
    monkeypatch.setattr("rsc.setup.torch_install.has_gpu", lambda: False)
    folder = tmp_path / "with a space"
    folder.mkdir()
    return Machine(folder, cpu_index="http://127.0.0.1:9/whl/cpu", settings={"PIP_NO_INDEX": "1"})


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"

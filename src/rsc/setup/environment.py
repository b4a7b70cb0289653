"""The virtual environment: made with pip in it, kept where it works, made anew where it is half made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from rsc.errors import ConfigError, ResourceError

UNFINISHED = "rsc-unfinished"
"""A file in an environment that is being made. After a kill nobody knows which packages are whole, so the
next set-up starts anew. An environment that somebody else made never has it and is never emptied."""

PARTS = re.compile(
    r"bin|include|lib|lib64|share|pyvenv\.cfg|\.gitignore|CACHEDIR\.TAG|rsc-.*|torch-constraint\.txt|light\.txt"
)
"""What lies at the top of an environment. Nothing else is ever deleted."""

TORCH_VERSION = "from importlib.metadata import version; print(version('torch'))"


class Environment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"

    @property
    def is_usable(self) -> bool:
        return not (self.folder / UNFINISHED).exists() and _succeeds([self.python, "-c", "import os"])

    def make(self, *, with_system_packages: bool) -> None:
        """Make it anew. Raises ConfigError where the folder cannot be written or holds something else."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_files()
            (self.folder / UNFINISHED).touch()
            for path in self.folder.iterdir():
                if path.name != UNFINISHED:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            venv.create(self.folder, system_site_packages=with_system_packages, symlinks=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the environment {self.folder}: {error.strerror or error}",
                hint="set RSC_VENV to a folder that you can write, for example RSC_VENV=$HOME/rsc-venv",
            ) from error

    def _refuse_foreign_files(self) -> None:
        foreign = [path.name for path in self.folder.iterdir() if not PARTS.fullmatch(path.name)]
        if foreign:
            raise ConfigError(
                f"{self.folder} is no working environment and holds other files ({foreign[0]})",
                hint="set RSC_VENV to another folder",
            )

    def add_pip(self, wheels: Path | None) -> None:
        """From `wheels`, else from the standard library, else with the pip of the interpreter."""
        if _succeeds([self.python, "-P", "-m", "pip", "--version"]):
            return
        ways: list[list[str | Path]] = []
        for wheel in sorted(wheels.glob("pip-*.whl")) if wheels else ():  # unpacked, pip is installed
            ways.append([self.python, "-I", "-m", "zipfile", "--extract", wheel, self._site_packages])
        ways.append([self.python, "-I", "-m", "ensurepip", "--default-pip"])
        ways.append([sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "pip"])
        if not any(_succeeds(way) for way in ways):
            minor = "{}.{}".format(*sys.version_info)
            raise ResourceError(
                f"{sys.executable} has neither ensurepip nor pip, so it cannot fill an environment",
                hint=f"Debian, Ubuntu: apt install python{minor}-venv; or set RSC_PYTHON to another Python",
            )

    @property
    def _site_packages(self) -> Path:
        return self.folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"

    def finish(self) -> None:
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    @property
    def has_system_packages(self) -> bool:
        return "include-system-site-packages = true" in (self.folder / "pyvenv.cfg").read_text()

    def has(self, project: str) -> bool:
        return any(self._site_packages.glob(f"{project}-*.dist-info"))


def torch_version_of(python: Path | str) -> str | None:
    """The version of the torch that is installed for `python`, else None."""
    found = subprocess.run([python, "-P", "-c", TORCH_VERSION], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def why_import_fails(python: Path | str, *modules: str) -> str | None:
    """The last line of what the import prints where it fails, else None. Leaves compiled files behind."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [python, "-P", "-c", f"import {', '.join(modules)}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _succeeds(command: list[str | Path]) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except OSError:
        return False

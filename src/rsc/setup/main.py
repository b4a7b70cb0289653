"""`./rsc` calls this when its environment is missing or older than pyproject.toml.

Runs on the interpreter that was found, before anything is installed: this room imports the standard library
alone. Settings (RSC_TORCH, RSC_WHEELS, ...) are explained at the head of the script `rsc`.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rsc.errors import ConfigError, Interrupted, ResourceError, RscError
from rsc.setup.checkout import write_wheel
from rsc.setup.environment import Environment, torch_version_of, why_import_fails
from rsc.setup.pip import INSTALL, Pip
from rsc.setup.torch_build import OLDEST, is_new_enough
from rsc.setup.torch_install import PYTORCH_CPU_INDEX, TorchInstaller, has_gpu


@dataclass(frozen=True)
class SetupRequest:
    """What is to be set up. `extras` is empty or like `[test]`, as pip writes it."""

    checkout: Path
    venv: Path
    extras: str
    stamp: str
    torch: str
    cpu_index: str
    wheels: Path | None

    @classmethod
    def parse(cls, arguments: list[str], environment: Mapping[str, str]) -> SetupRequest:
        checkout, folder, extras, stamp = arguments
        wheels = environment.get("RSC_WHEELS")
        if wheels and not any(Path(wheels).glob("*.whl")):
            raise ConfigError(
                f"RSC_WHEELS={wheels} is no folder with wheels", hint="`rsc bundle DIR` makes one"
            )
        return cls(
            checkout=Path(checkout),
            venv=Path(folder).absolute(),
            extras=extras,
            stamp=stamp,
            torch=environment.get("RSC_TORCH", ""),
            cpu_index=environment.get("RSC_TORCH_CPU_INDEX") or PYTORCH_CPU_INDEX,
            wheels=Path(wheels) if wheels else None,
        )

    @property
    def is_done(self) -> bool:
        stamp = self.venv / f"rsc-stamp{self.extras}"
        return stamp.exists() and stamp.read_text() == self.stamp


def main(arguments: list[str]) -> None:
    try:
        order = SetupRequest.parse(arguments, os.environ)
        with _alone(order.checkout):
            if not order.is_done:
                set_up(order)
    except OSError as error:
        say(f"set-up failed: {error}")
        sys.exit(ResourceError.exit_code)
    except RscError as error:
        say(error.message)
        if error.hint:
            say(f"hint: {error.hint}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted; the same command sets up again")
        sys.exit(Interrupted.exit_code)


def set_up(order: SetupRequest) -> None:
    environment = Environment(order.venv)
    if environment.is_usable:
        say(f"bringing {order.venv} up to date{' with the test tools' if order.extras else ''}")
    else:
        say(f"setting up {order.venv} with Python {sys.version.split()[0]}: about a minute, once")
        _make(environment, order)
    environment.add_pip(order.wheels)
    pip = Pip(environment.python, os.environ, log=order.venv / "rsc-setup.log")
    if order.wheels:
        pip.ask_no_index(order.wheels)
    try:
        _bring_torch(environment, pip, order)
        _install_project(environment, pip, order)
    except RscError:
        environment.finish()  # pip has put back what it could not install; after a kill it has not
        raise
    environment.finish()
    _check(environment, order)
    for extras in {"", order.extras}:
        (order.venv / f"rsc-stamp{extras}").write_text(order.stamp)


def say(message: str) -> None:
    print(f"rsc: {message}", file=sys.stderr, flush=True)


def _make(environment: Environment, order: SetupRequest) -> None:
    """With the packages of the interpreter where it has a torch, so that none is downloaded."""
    environment.make(with_system_packages=not order.torch and _has_torch(sys.executable))
    if environment.has_system_packages and not _has_torch(environment.python):
        environment.make(with_system_packages=False)  # the interpreter's own lie in yet another environment


def _has_torch(python: Path | str) -> bool:
    """A torch that is new enough and works. What is there and does not is named."""
    version = torch_version_of(python)
    if version is None:
        return False
    why = (
        why_import_fails(python, "torch")
        if is_new_enough(version)
        else f"RSC needs {OLDEST[0]}.{OLDEST[1]} or newer"
    )
    if why:
        say(f"torch: {version} of {python} not used: {why}")
    return why is None


def _bring_torch(environment: Environment, pip: Pip, order: SetupRequest) -> None:
    if order.torch == "skip":
        say("torch: none (RSC_TORCH=skip)")
        return
    found = torch_version_of(environment.python)
    if is_new_enough(found) and order.torch in ("", "cpu", "cuda"):
        say(f"torch: {found}, which is there already")
        return
    offered_by = "RSC_WHEELS" if order.wheels else "your pip configuration"
    installer = TorchInstaller(pip, say, order.cpu_index, wants_gpu=has_gpu(), offered_by=offered_by)
    installer.install(order.torch)


def _check(environment: Environment, order: SetupRequest) -> None:
    """Import what training imports, which also compiles it: 2,000 files of 8,000, pip compiles none."""
    modules = ("rsc.cli.main",) if order.torch == "skip" else ("torch", "rsc.train.loop")
    why = why_import_fails(environment.python, *modules)
    if why:
        raise ResourceError(
            f"everything is installed, but {' and '.join(modules)} cannot be imported: {why}",
            hint=f"rm -r {shlex.quote(str(order.venv))}, then set up again (another RSC_TORCH may help)",
        )


def _install_project(environment: Environment, pip: Pip, order: SetupRequest) -> None:
    """The project and what it needs, which may not replace the torch that was chosen."""
    with TemporaryDirectory() as scratch:
        torch = torch_version_of(environment.python)
        constraint = Path(scratch) / "torch.txt"
        constraint.write_text(f"torch==={torch}\n" if torch else "")
        wheel = write_wheel(order.checkout, Path(scratch), with_torch=order.torch != "skip")
        if environment.has("openrsc"):
            pip.run("uninstall", "--quiet", "--yes", "openrsc")
        project = f"openrsc{order.extras} @ {wheel.as_uri()}"
        answer = pip.run(*INSTALL, "--constraint", str(constraint), project)
    if answer.code != 0:
        raise ResourceError(
            f"pip could not install what RSC needs: {answer.reason}",
            hint=f"{pip.log} has all that pip printed; RSC_WHEELS=DIR installs from a folder of wheels",
        )


@contextmanager
def _alone(checkout: Path) -> Iterator[None]:
    """One set-up of a checkout at a time; the second waits, then finds it done."""
    descriptor = os.open(checkout, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

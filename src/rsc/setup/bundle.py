"""Collect every wheel that a machine without internet needs, for this platform or another.

The folder serves `RSC_WHEELS=DIR ./rsc ...` and plain `pip install --no-index --find-links DIR openrsc`: it
holds the project, its dependencies, a torch, and pip and hatchling for machines that have neither.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rsc.errors import ResourceError
from rsc.setup.checkout import write_wheel
from rsc.setup.pip import Pip, PipAnswer
from rsc.setup.torch_install import PYTORCH_CPU_INDEX, TorchInstaller, has_gpu

TOOLS = ("pip", "hatchling", "editables")
"""pip for a Python without ensurepip; the other two build the project, `pip install .` or `-e .`."""
CHECKSUMS = "SHA256SUMS"
HINT = "`pip download` by hand shows all that pip says; RSC_TORCH chooses another torch"

MANYLINUX = [
    *(f"manylinux_2_{minor}" for minor in range(28, 4, -1)),
    *("manylinux2014", "manylinux2010", "manylinux1", "linux"),
]
"""glibc 2.28 and older: Debian 10, Ubuntu 20.04, RHEL 8 and everything newer can use these wheels."""


@dataclass(frozen=True)
class Platform:
    tags: tuple[str, ...]
    markers: Mapping[str, str]
    """Values that environment markers (PEP 508) have there."""


def _linux(machine: str) -> Platform:
    tags = tuple(f"{prefix}_{machine}" for prefix in MANYLINUX)
    markers = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return Platform(tags, {**markers, "platform_machine": machine})


PLATFORMS = {
    "linux-x86_64": _linux("x86_64"),
    "linux-aarch64": _linux("aarch64"),
    "macos-arm64": Platform(
        ("macosx_14_0_arm64",),
        {
            "sys_platform": "darwin",
            "platform_system": "Darwin",
            "os_name": "posix",
            "platform_machine": "arm64",
        },
    ),
}


@dataclass(frozen=True)
class Target:
    """The machine that the wheels are for. None: like the one that runs this."""

    platform: str | None
    python_version: str | None

    @property
    def options(self) -> list[str]:
        """For pip: only wheels, since what is built here fits here alone."""
        tags = PLATFORMS[self.platform].tags if self.platform else ()
        version = ["--python-version", self.python_version] if self.python_version else []
        return ["--only-binary=:all:", *(f"--platform={tag}" for tag in tags), *version]

    @property
    def markers(self) -> dict[str, str]:
        markers = dict(PLATFORMS[self.platform].markers) if self.platform else {}
        if self.python_version:
            markers |= {
                "python_version": self.python_version,
                "python_full_version": f"{self.python_version}.0",
            }
        return markers

    @property
    def wants_gpu(self) -> bool:
        return self.platform.startswith("macos") if self.platform else has_gpu()


@dataclass(frozen=True)
class Bundle:
    folder: Path
    wheels: tuple[Path, ...]
    size_bytes: int


def collect(
    checkout: Path,
    folder: Path,
    *,
    target: Target,
    extras: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Bundle:
    """Fill `folder` with the wheels and their checksums.

    Wheels that lie there already are kept, so that one folder can serve several platforms.
    Raises ResourceError where a wheel cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = environment.get("RSC_TORCH", "")
    with TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        pip = _pip(environment, scratch, target.markers)
        if wanted != "skip":
            installer = TorchInstaller(
                pip,
                say,
                environment.get("RSC_TORCH_CPU_INDEX") or PYTORCH_CPU_INDEX,
                wants_gpu=target.wants_gpu,
                command=("download", "--quiet", "--dest", str(scratch / "torch")),
                target=tuple(target.options),
            )
            installer.install(wanted)
        constraint = scratch / "torch.txt"
        constraint.write_text(_exactly(scratch / "torch"))
        needs = write_wheel(checkout, scratch, with_torch=wanted != "skip")
        say("downloading the other packages")
        answer = pip.run(
            *("download", "--quiet", "--dest", str(folder), *target.options),
            *("--find-links", str(scratch / "torch"), "--constraint", str(constraint)),
            *(f"openrsc{_listed(extras)} @ {needs.as_uri()}", *TOOLS),
        )
        _check(answer, "download what RSC needs")
        _build(checkout, folder, environment, scratch)
    return _finish(folder)


def _build(checkout: Path, folder: Path, environment: Mapping[str, str], scratch: Path) -> None:
    """The wheel of the project, with the hatchling that was just downloaded or its like for this machine."""
    answer = _pip(environment, scratch, {}).run(
        *("wheel", "--quiet", "--no-deps", "--find-links", str(folder)),
        *("--wheel-dir", str(folder), str(checkout)),
    )
    _check(answer, "build the wheel of RSC")


def _pip(environment: Mapping[str, str], scratch: Path, markers: Mapping[str, str]) -> Pip:
    pip = Pip(Path(sys.executable), environment, log=scratch / "log", markers=markers)
    if wheels := environment.get("RSC_WHEELS"):
        pip.ask_no_index(Path(wheels))
    return pip


def _check(answer: PipAnswer, what: str) -> None:
    if answer.code != 0:
        raise ResourceError(f"pip could not {what}: {answer.reason}", hint=HINT)


def _exactly(folder: Path) -> str:
    """A constraint on the torch that lies in `folder`."""
    found = [path.name.split("-")[1] for path in folder.glob("torch-*.whl")]
    return f"torch==={found[0]}\n" if found else ""


def _listed(extras: Sequence[str]) -> str:
    return f"[{','.join(extras)}]" if extras else ""


def _finish(folder: Path) -> Bundle:
    wheels = tuple(sorted(folder.glob("*.whl")))
    sums = (f"{_sha256(path)}  {path.name}\n" for path in wheels)
    (folder / CHECKSUMS).write_text("".join(sums))
    return Bundle(folder, wheels, sum(path.stat().st_size for path in wheels))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

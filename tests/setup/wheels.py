"""Made-up wheels, folders and indexes for real pip: a `torch` of one line, and nothing from a network."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import files
from pathlib import Path

CUDA = ("nvidia-cublas; platform_system == 'Linux'", "triton~=3.8.0; platform_system == 'Linux'")


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    modules: Mapping[str, str] | None = None,
) -> Path:
    """A wheel whose only module says its own version, or which holds `modules`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    contents = {
        **({f"{module}.py": f"__version__ = {version!r}\n"} if modules is None else modules),
        f"{info}/METADATA": "\n".join([*lines, ""]),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*contents, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inside, content in contents.items():
            wheel.writestr(inside, content)
    return path


BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "openrsc-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        metadata = ["Metadata-Version: 2.1", "Name: openrsc", "Version: 0.1.0", ""]
        wheel.writestr("openrsc-0.1.0.dist-info/METADATA", "\\n".join(metadata))
        wheel.writestr("openrsc-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("openrsc-0.1.0.dist-info/RECORD", "")
    return name
"""


def make_hatchling(folder: Path) -> Path:
    """A build backend of the name that pyproject.toml asks for; its wheels are empty."""
    return make_wheel(
        folder, "hatchling", "1", modules={"hatchling/__init__.py": "", "hatchling/build.py": BACKEND}
    )


def make_index(folder: Path, wheels: Iterable[Path]) -> str:
    """A package index in a folder; returns its address for pip."""
    by_project: dict[str, list[Path]] = {}
    for wheel in wheels:
        by_project.setdefault(wheel.name.partition("-")[0].replace("_", "-").lower(), []).append(wheel)
    for project, members in by_project.items():
        page = folder / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("".join(f'<a href="{each.as_uri()}">{each.name}</a>\n' for each in members))
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def pip_wheel(folder: Path) -> Path:
    """The pip that runs these tests, packed into a wheel again."""
    listed = [
        file for file in files("pip") or () if file.parts[0] != ".." and "__pycache__" not in file.parts
    ]
    version = next(file.parts[0] for file in listed if file.parts[0].endswith(".dist-info"))
    path = folder / f"{version.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in listed:
            wheel.write(file.locate(), str(file))
    return path

"""Install a checkout into its environment, so that an edit of `src/` counts at once.

The same as `pip install -e .` without a build: a wheel with the metadata of pyproject.toml and the path of
`src/` is written here and given to pip. A build needs hatchling, which a folder of wheels seldom holds.
"""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rsc import __version__

NAME = f"openrsc-{__version__}"
WHEEL = "Wheel-Version: 1.0\nGenerator: rsc\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LINK = "_editable_impl_openrsc.pth"
"""The name that hatchling gives it, so that `pip install -e .` replaces this installation."""


def write_wheel(checkout: Path, folder: Path, *, with_torch: bool) -> Path:
    """Write the wheel into `folder` and return its path."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    info = f"{NAME}.dist-info"
    files = {
        LINK: f"{checkout / 'src'}\n",
        f"{info}/METADATA": "\n".join([*_metadata(project, with_torch=with_torch), ""]),
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": "[console_scripts]\n"
        + "".join(f"{name} = {target}\n" for name, target in project["scripts"].items()),
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def _metadata(project: dict[str, Any], *, with_torch: bool) -> Iterable[str]:
    yield from ("Metadata-Version: 2.1", "Name: openrsc", f"Version: {__version__}")
    yield f"Requires-Python: {project['requires-python']}"
    for requirement in project["dependencies"]:
        if with_torch or not requirement.startswith("torch>"):
            yield f"Requires-Dist: {requirement}"
    for extra, members in project["optional-dependencies"].items():
        yield f"Provides-Extra: {extra}"
        for requirement in members:
            base, _, marker = requirement.partition(";")
            yield (
                f"Requires-Dist: {base.strip()}; "
                + (f"({marker.strip()}) and " if marker else "")
                + f'extra == "{extra}"'
            )

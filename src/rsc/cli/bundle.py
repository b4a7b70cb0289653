"""`rsc bundle DIR`: the wheels that a machine without internet needs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

import rsc
from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.errors import ConfigError
from rsc.layers import nearest
from rsc.setup.bundle import PLATFORMS, Target, collect


def bundle(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the wheels go; made if it is not there.")
    ],
    platform: Annotated[
        str | None,
        typer.Option(help=f"For another platform: {', '.join(PLATFORMS)}.", show_default="this one"),
    ] = None,
    python_version: Annotated[
        str | None, typer.Option(help="For another Python, such as 3.12.", show_default="this one")
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Option(help="An extra of pyproject.toml as well, such as parquet or test.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Collect every wheel that RSC needs, for `RSC_WHEELS=DIR ./rsc ...` on a machine without internet.

    RSC_TORCH chooses the torch, as it does for `./rsc`.
    """
    target = Target(_known_platform(platform), python_version)
    made = collect(_checkout(), folder, target=target, extras=extra or [], environment=os.environ, say=say)
    result = {
        "folder": str(folder),
        "wheels": [path.name for path in made.wheels],
        "size_bytes": made.size_bytes,
    }
    emit(
        result, as_json=as_json, text=f"{len(made.wheels)} wheels, {made.size_bytes / 1e6:.0f} MB in {folder}"
    )
    next_commands(
        f"cd {shlex.quote(str(folder))} && sha256sum --check SHA256SUMS      # there, after the copy",
        f"RSC_WHEELS={shlex.quote(str(folder))} ./rsc quickstart             # there, in a clone of RSC",
    )


def _known_platform(name: str | None) -> str | None:
    if name is not None and name not in PLATFORMS:
        raise ConfigError(
            f"there is no platform {name!r}", hint=nearest(name, PLATFORMS, what="rsc bundle --help")
        )
    return name


def _checkout() -> Path:
    checkout = Path(rsc.__file__).parents[2]
    if not (checkout / "pyproject.toml").exists():
        raise ConfigError(
            "rsc bundle builds the wheel of RSC, and this RSC was not started from a checkout",
            hint="clone the repository and run ./rsc bundle there",
        )
    return checkout

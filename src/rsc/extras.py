"""Optional packages: what to type to get one into the environment that runs now."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires


def install_command(extra: str) -> str:
    """`/path/to/python -m pip install 'pyarrow>=18'` for the extra `parquet` of pyproject.toml.

    Names the package itself, because an extra can only be asked for where RSC lies on a package index.
    """
    wanted = [_requirement(line) for line in requires("openrsc") or () if _extra(line) == extra]
    assert wanted, f"pyproject.toml has no extra {extra}"
    return f"{sys.executable} -m pip install {' '.join(repr(each) for each in wanted)}"


def _requirement(line: str) -> str:
    """`pyarrow>=18` of `pyarrow>=18; extra == "parquet"`."""
    return line.partition(";")[0].strip()


def _extra(line: str) -> str | None:
    match = re.search(r"""extra\s*==\s*["']([^"']+)["']""", line)
    return match[1] if match else None

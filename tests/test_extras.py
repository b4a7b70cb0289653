from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rsc.extras import install_command

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.mark.parametrize("extra", ["scan", "parquet", "pkcs11", "aws", "float8", "tensorboard"])
def test_the_command_names_what_pyproject_names(extra: str) -> None:
    (wanted,) = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"][extra]
    assert install_command(extra).lower().endswith(f" -m pip install {wanted!r}".lower())

"""A setting that nothing reads is a promise that is not kept: every field of every config has a reader."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import rsc

PACKAGE = Path(rsc.__file__).parent
SOURCE = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
CONFIGS = sorted(
    ".".join(("rsc", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in (*PACKAGE.rglob("config.py"), PACKAGE / "review" / "policy.py")
)


def settings() -> list[tuple[str, str]]:
    """(model, field) of every config that a recipe, a policy or a command can set."""
    found = []
    for name in CONFIGS:
        for model in vars(importlib.import_module(name)).values():
            if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == name:
                found += [(model.__name__, field) for field in model.model_fields]
    return found


@pytest.mark.parametrize(("model", "field"), settings())
def test_a_setting_has_a_reader(model: str, field: str) -> None:
    assert re.search(rf"\.{field}\b", SOURCE), f"{model}.{field} can be set, and nothing reads it"

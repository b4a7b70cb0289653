"""TOML that is made to break what reads it is an error in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.config import Settings, Workspace
from rsc.errors import ConfigError
from rsc.keys.providers.configured import configured_providers
from rsc.layers import resolve
from rsc.review.policy import parse_policy
from rsc.toml import parse_toml, parse_value

HOSTILE = {
    "lists": "a = " + "[" * 100_000,
    "closed lists": "a = " + "[" * 300 + "]" * 300,
    "tables": "a = " + "{b = " * 100_000,
    "dotted keys": ".".join("a" * 50_000) + " = 1",
    "headers": "[" + ".".join("a" * 50_000) + "]",
    "no date": "a = 2026-13-45",
    "long": "#" * 2_000_000,
    "number": "a = " + "9" * 100_000,
    "text": "\0\x1b[2J",
}


def as_recipe(text: str, folder: Path) -> None:
    path = folder / "r.toml"
    path.write_text(text)
    resolve(str(path))


def as_settings(text: str, folder: Path) -> Settings:
    (folder / "config.toml").write_text(text)
    return Workspace(folder).settings


def as_providers(text: str, folder: Path) -> None:
    (folder / "providers.toml").write_text(text)
    configured_providers(folder)


def as_policy(text: str, folder: Path) -> None:
    parse_policy(text.encode())


def as_override(text: str, folder: Path) -> None:
    resolve("language", overrides=[text.removeprefix("[").removesuffix("]").replace(" = ", "=")])


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [as_recipe, as_settings, as_providers, as_policy])
def test_hostile_toml(name: str, read: Callable[[str, Path], None], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(HOSTILE[name], tmp_path)
    assert len(str(refused.value)) < 1000


def test_a_key_of_a_command_that_is_too_deep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        as_override(HOSTILE["dotted keys"], tmp_path)


@given(st.text(max_size=40))
def test_a_value_is_toml_or_the_word_itself(text: str) -> None:
    parse_value(text)
    try:
        values = parse_toml(text, name="it")
    except ConfigError:
        return
    assert isinstance(values, dict)

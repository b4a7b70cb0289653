from __future__ import annotations

from typing import Any

import pytest

from rsc.errors import ConfigError
from rsc.store.format.schema import Field, Schema


@pytest.mark.parametrize(
    "field",
    [
        {"name": "", "kind": "tensor"},
        {"name": "a b", "kind": "tensor"},
        {"name": "a", "kind": "picture"},
        {"name": "a", "kind": "tensor", "dtype": "object"},
        {"name": "a", "kind": "string", "dtype": "uint16"},
        {"name": "a", "kind": "tokens", "dtype": "uint16", "shape": (2,)},
        {"name": "a", "kind": "tensor", "shape": (0,)},
        {"name": "a", "kind": "tensor", "shape": (1 << 31,)},
    ],
)
def test_impossible_fields_are_config_errors(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Field(**field)


def test_repeated_names_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="different names"):
        Schema((Field("a", "bytes"), Field("a", "bytes")))

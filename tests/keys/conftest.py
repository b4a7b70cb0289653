"""What tests of keys share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rsc.keys.secret import SecretKey


@pytest.fixture
def key() -> Iterator[SecretKey]:
    with SecretKey.from_buffer(bytearray(range(32))) as secret:
        yield secret

from __future__ import annotations

import pytest
from house import House


@pytest.fixture
def house(workspace, clock) -> House:
    return House(workspace, clock)

from __future__ import annotations

import pytest
from house import SERVES, House

from rsc.release.agent.server import AgentServer


@pytest.fixture
def house(workspace, clock) -> House:
    return House(workspace, clock)


@pytest.fixture
def server(house, tmp_path):
    """The agent of an approved data set, on a socket at `path`."""
    house.add()
    house.approve()
    with AgentServer(
        house.agent, socket_path=tmp_path / "agent.sock", clock=house.clock, serves=SERVES
    ) as running:
        running.path = tmp_path / "agent.sock"
        yield running

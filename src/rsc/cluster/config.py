"""The `[cluster]` section of a recipe: over how many nodes a job runs, and when a node counts as lost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rsc.layers import FrozenModel

Seconds = Annotated[float, Field(gt=0.0)]


class ClusterConfig(FrozenModel):
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes of the job; each has `parallel.workers / nodes` ranks."""
    spares: Annotated[int, Field(ge=0)] = 0
    """Nodes beyond them that wait, with everything imported, for the place of one that is lost."""
    interface: str = ""
    """Network interface of the controller that nodes reach it by, or its address; empty: by route."""
    node_silence_s: Seconds = 20.0
    """A node of which nothing is heard for so long is lost; a cut network must be back in half of it."""
    join_s: Seconds = 300.0
    """How long a first start waits for all nodes; then it takes those that are there, if a mesh allows it."""
    rejoin_s: Seconds = 30.0
    """The same for a later start, after a node was lost and there is no spare."""
    node_starts: Annotated[int, Field(ge=1)] = 3
    """Times that a node's agent is started at most."""

"""What one node of a run is asked to do. The controller writes it, the node's process reads it; JSON between.

No key is in it: workers ask the key agent at `socket`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from rsc.config import CipherChoice


@dataclass(frozen=True)
class NodeJob:
    run: str
    """The run's folder."""
    data: str
    """The folder of data sets; of no use where there is a mover."""
    recipe: dict[str, Any]
    """Its settings, resolved."""
    workers: int
    """Ranks on this node."""
    socket: str
    """The key agent's."""
    cipher: CipherChoice = "auto"
    """Of its checkpoints."""
    cache: str | None = None
    mover: str | None = None
    """The node's cache and the socket of who fills it, where data lies in an object store."""
    hub: tuple[str, int] | None = None
    """Where the job's controller listens, where it has several nodes; its secret comes on stdin."""
    node: str = ""
    """Name of this node, in a job of several."""
    silence_s: float = 0.0
    """See cluster.node_silence_s."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "hub": tuple(values["hub"]) if values["hub"] else None})

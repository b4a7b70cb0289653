"""What the job's controller asks a node on another machine to do; JSON between (control/node.py reads it)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class NodePlan:
    workspace: str
    run: str
    before: list[str]
    """The command of an agent up to its job, with its sandbox."""
    node_job: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

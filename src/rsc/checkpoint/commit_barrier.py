"""Where the writer threads of all ranks tell each other that their file is durable.

Writer threads run beside training, so they may not use its process groups: two threads would enter
collectives in different orders. The key-value store of the process group has no order to break.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from torch._C._distributed_c10d import Store

from rsc.errors import NotFinished


class Meeting:
    """One checkpoint attempt: every rank announces once, rank 0 collects."""

    def __init__(
        self,
        store: Store,
        *,
        world: int,
        sleep: Callable[[float], None] = time.sleep,
        patience_s: float = 600,
    ) -> None:
        self._store = store
        self._world = world
        self._sleep = sleep
        self._patience_s = patience_s

    def announce(self, topic: str, *, rank: int, facts: dict[str, Any]) -> None:
        self._store.set(f"{topic}/{rank}", json.dumps(facts))

    def collect(self, topic: str) -> list[dict[str, Any]]:
        """What every rank announced, by rank. Raises NotFinished after `patience_s`."""
        keys = [f"{topic}/{rank}" for rank in range(self._world)]
        waited_s = 0.0
        while not self._store.check(keys):
            if waited_s > self._patience_s:
                raise NotFinished(f"not every rank finished {topic} in {self._patience_s:.0f} s")
            self._sleep(0.005)
            waited_s += 0.005
        return [json.loads(self._store.get(key)) for key in keys]

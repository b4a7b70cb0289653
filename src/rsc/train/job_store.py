"""The key-value store of torch.distributed over the agents of a job: no rank opens a port for it.

Process groups set and get the addresses of ranks by it, checkpoints meet by it. A key has one value for the
whole start, which is all that torch's groups over gloo and NCCL need.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Self

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from rsc.cluster.rendezvous.rank_keys import RankKeys


class JobStore(Store):
    """Raises DistStoreError where a key does not come in time, or the agent is gone."""

    def __init__(self, keys: RankKeys) -> None:
        super().__init__()
        self._keys = keys

    def set(self, key: str, value: str | bytes) -> None:
        self._try(lambda: self._keys.set(key, value.encode() if isinstance(value, str) else bytes(value)))

    def get(self, key: str) -> bytes:
        found: bytes = self._try(lambda: self._keys.get(key))
        return found

    def check(self, keys: Iterable[str]) -> bool:
        return bool(self._try(lambda: self._keys.check(keys)))

    def wait(self, keys: Iterable[str], timeout: timedelta | None = None) -> None:
        for key in keys:
            self.get(key)

    def clone(self) -> Self:
        return self

    def has_extended_api(self) -> bool:
        return False

    @staticmethod
    def _try(action: Any) -> Any:
        try:
            return action()
        except OSError as error:
            raise dist.DistStoreError(f"a key of the job was not heard: {error}") from None

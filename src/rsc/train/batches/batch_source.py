"""Where batches come from, as the loop and validation see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch


class BatchSource(Protocol):
    """A loader: endless, with a state that does not depend on the number of ranks."""

    def __next__(self) -> Mapping[str, torch.Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...

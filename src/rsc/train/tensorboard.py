"""Event files for TensorBoard beside our JSONL, by tensorboardX (extra `tensorboard`); rank 0 writes them.

`train.tensorboard = true`, then `tensorboard --logdir WORKSPACE/runs/RUN/tensorboard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError
from rsc.extras import install_command


class EventFiles:
    """Numbers of metrics lines as scalars by step. Raises ConfigError where tensorboardX is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "train.tensorboard = true needs tensorboardX, which is not installed",
                hint=f"{install_command('tensorboard')}, or set train.tensorboard=false",
            ) from None
        self._writer = SummaryWriter(str(folder))

    def write(self, *, step: int, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, float(value), step)

    def close(self) -> None:
        self._writer.close()

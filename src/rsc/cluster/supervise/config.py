"""When a rank counts as hung or slow, and when to give up: the part of `[train]` that supervision reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rsc.layers import FrozenModel


class SupervisionConfig(FrozenModel):
    heartbeat_s: Annotated[float, Field(gt=0.0)] = 0.5
    """Seconds between two reports of progress, with the pace of each rank; ends are seen within 20 ms."""
    hang_medians: Annotated[float, Field(gt=1.0)] = 20.0
    """A rank hangs when a step takes this many medians of the last steps ..."""
    hang_floor_s: Annotated[float, Field(gt=0.0)] = 60.0
    """... and at least this many seconds; the first step of a start has ten times as long."""
    straggler_ratio: Annotated[float, Field(gt=1.0)] = 1.5
    """A rank whose compute time is this many times the ranks' median is reported as a straggler."""
    max_failures_without_progress: Annotated[int, Field(ge=1)] = 3
    """Failures in a row with no new step between them that end the run as a crash loop."""

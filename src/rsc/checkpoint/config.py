"""The `[checkpoint]` section of a recipe. No torch here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rsc.config import FrozenModel


class CheckpointConfig(FrozenModel):
    every: Annotated[int, Field(ge=0)] = 100
    """Optimiser steps between two checkpoints; 0 writes only the last one."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that stay; older ones are deleted when a newer one is durable."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Checkpoints at multiples of this many steps are kept for good; 0 keeps none beyond `keep`."""
    asynchronous: bool = True
    """Copy the state and write it beside the next steps; false waits until it is durable."""

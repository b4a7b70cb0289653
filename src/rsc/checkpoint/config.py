"""The `[checkpoint]` section of a recipe. No torch here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from rsc.layers import FrozenModel


class CheckpointConfig(FrozenModel):
    every: Annotated[int, Field(ge=0)] = 100
    """Optimiser steps between two checkpoints; 0 writes only the last one."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that stay; older ones are deleted when a newer one is durable."""
    keep_best: bool = False
    """Write a checkpoint where `eval.every` finds the lowest validation loss so far, and keep that one.
    Copies in `folder` follow `keep` alone."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Checkpoints at multiples of this many steps are kept for good; 0 keeps none beyond `keep`."""
    folder: str = ""
    """Folder, or object store (`s3://bucket/prefix`, `gs://`, `az://`), that gets a copy of every checkpoint
    by the same retention; `rsc runs resume FOLDER/RUN` goes on there on another machine. Empty: none."""
    asynchronous: bool = True
    """Copy the state and write it beside the next steps; false waits until it is durable."""

    @field_validator("folder")
    @classmethod
    def _means_the_same_everywhere(cls, folder: str) -> str:
        if folder and "://" not in folder and not folder.startswith("/"):
            raise ValueError(f"{folder!r} is neither an absolute path nor an address like s3://bucket/prefix")
        return folder.rstrip("/")

"""Start from the weights of another run (`model.init_from`): pre-train once, fine-tune often.

A weight is taken over where name and shape are the same; the rest (a new head) starts as if alone. Only a
run's first start does this: later ones have checkpoints of their own and need no parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from rsc.checkpoint.load import newest_good
from rsc.checkpoint.pieces import Piece
from rsc.checkpoint.retention import finished
from rsc.errors import ConfigError, NotFinished
from rsc.parallel.boxes import Box
from rsc.store.local import LocalStore
from rsc.store.secret import SecretKey
from rsc.train.recipe import Recipe

_PREFIX = "model/"


def parent_of(recipe: Recipe, *, run: Path) -> Path | None:
    """Folder of the run to start from, or None: none was asked for, or this run has begun already.

    Raises ConfigError when there is no such run.
    """
    name = recipe.model.init_from
    if not name or finished(LocalStore(run / "checkpoints")):
        return None
    parent = run.parent / name
    if Path(name).name != name or not (parent / "run.json").exists():
        raise ConfigError(f"model.init_from: there is no run {name!r}", hint="give an id from `rsc runs ls`")
    return parent


def weights_of(parent: Path, *, key: SecretKey) -> dict[str, torch.Tensor]:
    """Every weight of a run's newest good checkpoint by its name, whole, on the CPU.

    Each rank holds all of them until its own parts are filled. Raises NotFinished without a checkpoint.
    """
    checkpoint = newest_good(LocalStore(parent / "checkpoints"), run=parent.name, key=key)
    if checkpoint is None:
        raise NotFinished(f"run {parent.name} has no checkpoint to start from", hint="train it first")
    pieces = [
        Piece(name, shape, Box((0,) * len(shape), shape), torch.empty(shape, dtype=dtype), is_ours=True)
        for name, (shape, dtype) in checkpoint.shapes().items()
        if name.startswith(_PREFIX)
    ]
    checkpoint.read_into(pieces)
    return {piece.name.removeprefix(_PREFIX): piece.tensor for piece in pieces}


def inheriting(
    first_value: Callable[[str, torch.Size], torch.Tensor], *, weights: Mapping[str, torch.Tensor]
) -> Callable[[str, torch.Size], torch.Tensor]:
    """First values that are the parent's where it has one of that name and shape."""

    def value(name: str, shape: torch.Size) -> torch.Tensor:
        theirs = weights.get(name)
        return theirs if theirs is not None and theirs.shape == shape else first_value(name, shape)

    return value

"""Start from the weights of another run, or from open weights (`model.init_from`): pre-train once, fine-tune
often.

A weight is taken over where name and shape are the same; the rest (a new head) starts as if alone. The
trunk must be the recipe's (recipes/same_trunk.py). Only a run's first start does this: later ones have
checkpoints of their own and need no parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch._C._distributed_c10d import Store

from rsc.checkpoint.load import Checkpoint, newest_good
from rsc.checkpoint.read_counts import CheckpointFiles, StoreReads
from rsc.checkpoint.retention import finished
from rsc.checkpoint.shards import Piece
from rsc.errors import ConfigError, NotFinished
from rsc.export.settings import is_export
from rsc.export.weights import read_export
from rsc.keys.secret import SecretKey
from rsc.models.config import ModelConfig
from rsc.parallel.boxes import Box
from rsc.recipes.recipe import Recipe
from rsc.recipes.same_trunk import require_same_trunk
from rsc.recipes.tokens_fit import require_same_text
from rsc.store.bulk.local import LocalStore

_PREFIX = "model/"


def parent_of(recipe: Recipe, *, run: Path) -> Path | None:
    """Folder of the run or of the open weights to start from, or None: none was asked for, or this run has
    begun already.

    Raises ConfigError when there is no such run.
    """
    name = recipe.model.init_from
    if not name or finished(LocalStore(run / "checkpoints")):
        return None
    if is_export(Path(name)):
        return Path(name)
    parent = run.parent / name
    if Path(name).name != name or not (parent / "run.json").exists():
        raise ConfigError(
            f"model.init_from: there is no run {name!r}, and no folder of that name with .safetensors files",
            hint="give an id from `rsc runs ls`, or the path of an export",
        )
    return parent


def inherited_by(
    recipe: Recipe,
    *,
    run: Path,
    key: SecretKey | None,
    reads: StoreReads,
    agree: Callable[[Callable[[], int]], int],
) -> dict[str, torch.Tensor] | None:
    """The weights that a run's first start takes over; None where it has no parent.

    `key` is the parent run's; open weights need none. `agree`: `agreed_step` of this start.
    Raises ConfigError for open weights of another trunk.
    """
    parent = parent_of(recipe, run=run)
    if parent is None:
        return None
    if is_export(parent):
        return open_weights(parent, config=recipe.model)
    assert key is not None, "the worker asks for the key of a parent run"
    files = reads.of(LocalStore(parent / "checkpoints"))
    step = agree(lambda: newest_step(files, run=parent.name, key=key))
    return weights_of(Checkpoint(files, step=step, run=parent.name, key=key))


def agreed_step(choose: Callable[[], int], *, rank: int, store: Store) -> int:
    """The step that rank 0 chooses, on every rank of this start: a parent that still trains may commit or
    drop checkpoints between two looks, and weights of two steps fit together without a word."""
    if rank == 0:
        store.set("parent/step", str(choose()))
    return int(store.get("parent/step"))


def newest_step(files: CheckpointFiles, *, run: str, key: SecretKey) -> int:
    """Step of a run's newest good checkpoint. Raises NotFinished without one."""
    checkpoint = newest_good(files, run=run, key=key)
    if checkpoint is None:
        raise NotFinished(f"run {run} has no checkpoint to start from", hint="train it first")
    return checkpoint.step


def open_weights(folder: Path, *, config: ModelConfig) -> dict[str, torch.Tensor]:
    """Weights of an export or of a Llama or Mixtral folder under our names. Raises ConfigError when its trunk
    differs from the recipe's, with the settings to change."""
    opened = read_export(folder)
    require_same_trunk(opened.config.trunk, ours=config.trunk, of=str(folder))
    require_same_text(opened.config.text, ours=config.text, of=str(folder))
    return opened.state


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Every weight of a checkpoint by its name, whole, on the CPU.

    Each rank holds all of them until its own parts are filled.
    """
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

"""Open what was trained: a finished run (its newest good checkpoint) or an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rsc.checkpoint.load import Checkpoint, newest_good
from rsc.checkpoint.read_counts import CheckpointFiles
from rsc.checkpoint.retention import finished
from rsc.checkpoint.shards import state_pieces
from rsc.errors import ConfigError, IntegrityError, NotFinished
from rsc.keys.secret import SecretKey
from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.models.tokenizer import Tokenizer, open_tokenizer
from rsc.recipes.recipe import Recipe, recipe_of
from rsc.runs.folder import RunFolder
from rsc.store.bulk.untrusted import UntrustedStore
from rsc.train.allocator import keep_freed_memory
from rsc.train.engine.precision import Precision, choose_precision


@dataclass(frozen=True)
class Trained:
    """A model ready to answer: evaluation mode, in `precision`, on the GPU where there is one."""

    name: str
    model: Model
    config: ModelConfig
    context: int
    """Tokens of a packed sequence it was trained on."""
    separator: int | None
    """The id that stood between documents; None where nobody says."""
    precision: Precision
    step: int | None
    """Optimiser steps behind it; None for weights from elsewhere."""
    recipe: Recipe | None
    """Settings of the run; None for weights from elsewhere."""
    passed_over: tuple[int, ...] = ()
    """Newer checkpoints that could not be read."""

    @property
    def text_field(self) -> str:
        """The field that a language model reads."""
        return self.recipe.data.text_field if self.recipe is not None else "text"

    def tokenizer(self) -> Tokenizer:
        """Raises ConfigError for a model without a text stem."""
        if self.config.text is None:
            raise ConfigError(f"{self.name} reads no text", hint="use `rsc predict` with a file of its kind")
        return open_tokenizer(self.config.text)


@dataclass(frozen=True)
class LoadedRun:
    model: Model
    step: int
    passed_over: tuple[int, ...]
    """Newer checkpoints that could not be read."""


def open_run(run: RunFolder, *, key: SecretKey, step: str = "newest") -> Trained:
    """A good checkpoint of a run, in the precision it was trained in: the `newest`, the `best` by its
    validations, or that of a step.

    Raises NotFinished when there is none yet, ConfigError for a step that is not there, IntegrityError when
    it is damaged.
    """
    recipe = recipe_of(run)
    loaded = _load(run, recipe=recipe, key=key, step=step)
    return _ready(
        run.id,
        loaded.model,
        context=recipe.data.sequence_length,
        separator=recipe.data.separator if recipe.is_packed_language else None,
        requested=recipe.train.precision,
        step=loaded.step,
        passed_over=loaded.passed_over,
        recipe=recipe,
    )


def from_state(
    name: str,
    *,
    config: ModelConfig,
    state: Mapping[str, torch.Tensor],
    context: int,
    separator: int | None,
) -> Trained:
    """Weights from an export (rsc/export/weights.py reads them)."""
    model = build_model(config)
    model.load_state_dict(dict(state))
    return _ready(name, model, context=context, separator=separator, requested="auto", step=None, recipe=None)


def load_run(run: RunFolder, *, key: SecretKey, step: str = "newest") -> LoadedRun:
    """The weights of a run in float32, for export. Raises as `open_run`."""
    return _load(run, recipe=recipe_of(run), key=key, step=step)


def _load(run: RunFolder, *, recipe: Recipe, key: SecretKey, step: str) -> LoadedRun:
    """The newest checkpoint that can be read, whatever a damaged one before it; or the very one asked for."""
    store, damaged = UntrustedStore(run.path, "checkpoints"), []
    for wanted in _candidates(store, run=run, key=key, step=step):
        model = build_model(recipe.model)
        try:
            checkpoint = Checkpoint(store, step=wanted, run=run.id, key=key)
            checkpoint.read_into(state_pieces([model], [], is_writer=lambda _: True))
        except (IntegrityError, OSError):
            if step != "newest":
                raise
            damaged.append(wanted)
            continue
        return LoadedRun(model, checkpoint.step, tuple(damaged))
    if damaged:
        raise IntegrityError(
            f"none of the {len(damaged)} checkpoints of run {run.id} can be read",
            hint="with copies in checkpoint.folder, `rsc runs resume` fetches them",
            outcome="frame",
        )
    raise NotFinished(
        f"run {run.id} has no checkpoint yet", hint=f"go on with it: `rsc runs resume {run.id}`"
    )


def _candidates(store: CheckpointFiles, *, run: RunFolder, key: SecretKey, step: str) -> list[int]:
    """Steps to try, in this order. Raises ConfigError for one that is not there."""
    steps = finished(store)
    if step == "newest" or not steps:
        return steps[::-1]
    wanted = _best_step(store, run=run, key=key) if step == "best" else step
    if str(wanted) not in map(str, steps):
        raise ConfigError(
            f"run {run.id} has no checkpoint of step {wanted}",
            hint=f"it has: {', '.join(map(str, steps))}; `newest` and, with checkpoint.keep_best, `best`",
        )
    return [int(wanted)]


def _best_step(store: CheckpointFiles, *, run: RunFolder, key: SecretKey) -> str:
    """As the newest checkpoint tells it, which every rank agreed on."""
    newest = newest_good(store, run=run.id, key=key)
    best = newest.root.state["progress"].get("best_step") if newest is not None else None
    if best is None:
        raise ConfigError(
            f"run {run.id} was never validated, so none of its steps is the best",
            hint="train with eval.every=100 and checkpoint.keep_best=true",
        )
    return str(best)


def _ready(name: str, model: Model, *, requested: Any, **facts: Any) -> Trained:
    keep_freed_memory()  # the kernel otherwise takes a third of the time of an evaluation for its pages
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(requested, device_type=device.type)
    model.to(device=device, dtype=precision.dtype).eval()
    return Trained(name=name, model=model, config=model.config, precision=precision, **facts)

"""Open what was trained: a finished run (its newest good checkpoint) or an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rsc.checkpoint.load import newest_good
from rsc.checkpoint.shards import state_pieces
from rsc.errors import ConfigError, NotFinished
from rsc.keys.secret import SecretKey
from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.models.tokenizer import Tokenizer, open_tokenizer
from rsc.recipes.recipe import Recipe, recipe_of
from rsc.runs.folder import RunFolder
from rsc.store.bulk.untrusted import UntrustedStore
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

    @property
    def text_field(self) -> str:
        """The field that a language model reads."""
        return self.recipe.data.text_field if self.recipe is not None else "text"

    def tokenizer(self) -> Tokenizer:
        """Raises ConfigError for a model without a text stem."""
        if self.config.text is None:
            raise ConfigError(f"{self.name} reads no text", hint="use `rsc predict` with a file of its kind")
        return open_tokenizer(self.config.text)


def open_run(run: RunFolder, *, key: SecretKey) -> Trained:
    """The newest good checkpoint of a run, in the precision it was trained in.

    Raises NotFinished when there is none yet, IntegrityError when it is damaged.
    """
    recipe = recipe_of(run)
    model, step = _load(run, recipe=recipe, key=key)
    return _ready(
        run.id,
        model,
        context=recipe.data.sequence_length,
        separator=recipe.data.separator if recipe.is_packed_language else None,
        requested=recipe.train.precision,
        step=step,
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


def whole_state(run: RunFolder, *, key: SecretKey) -> tuple[ModelConfig, dict[str, torch.Tensor], int]:
    """Config, float32 weights and step of a run, for export. Raises as `open_run`."""
    recipe = recipe_of(run)
    model, step = _load(run, recipe=recipe, key=key)
    return recipe.model, model.state_dict(), step


def _load(run: RunFolder, *, recipe: Recipe, key: SecretKey) -> tuple[Model, int]:
    checkpoint = newest_good(UntrustedStore(run.path, "checkpoints"), run=run.id, key=key)
    if checkpoint is None:
        raise NotFinished(
            f"run {run.id} has no checkpoint yet", hint=f"go on with it: `rsc runs resume {run.id}`"
        )
    model = build_model(recipe.model)
    checkpoint.read_into(state_pieces([model], [], is_writer=lambda _: True))
    return model, checkpoint.step


def _ready(name: str, model: Model, *, requested: Any, **facts: Any) -> Trained:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(requested, device_type=device.type)
    model.to(device=device, dtype=precision.dtype).eval()
    return Trained(name=name, model=model, config=model.config, precision=precision, **facts)

"""Measure models that answer about whole samples: classes, several labels, sequences of symbols.

columns of a split -> batches -> model -> a scorer -> measures with intervals, slices, calibration
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch

from rsc.errors import ConfigError
from rsc.evaluate.measures import Array
from rsc.evaluate.scorers import SCORERS, SampleReport
from rsc.layers import nearest
from rsc.loader.ragged import RaggedTensor
from rsc.models.build import Model
from rsc.recipes.sections import EvalConfig
from rsc.store.format.columns import Columns
from rsc.train.batches.collate import Binder, Column
from rsc.train.batches.frame_batches import batches_of
from rsc.train.batches.sample_seeds import Draws
from rsc.train.batches.streams import stream_seed

MAX_GROUPS = 24  # values of a slice column; one with more is an identifier, not a group


@torch.no_grad()
def evaluate_samples(model: Model, *, columns: Iterable[Columns], config: EvalConfig) -> SampleReport:
    """Score every sample that can be used. Raises DataError when there is none."""
    model.eval()
    scorer = SCORERS[model.config.head.kind](model.config.head.labels)
    bad: Counter[str] = Counter()
    binder, device = Binder(model.config), next(model.parameters()).device
    draws = Draws(stream_seed(0, "evaluation")) if scorer.draws_tokens else None
    longest = _longest_field(model) if scorer.sorts_by_length else None
    for batch in batches_of(columns, batch_size=config.batch_size, by_length_of=longest):
        bound = binder.bind(batch, draws=draws)
        bad += bound.bad
        if draws is not None:
            draws = draws.after(len(next(iter(bound.batch.values()))))
        outputs = model({name: value.to(device) for name, value in bound.batch.items()}, scorer.want)
        scorer.add(outputs, bound.batch, groups=groups_of(batch, model=model, config=config))
    return scorer.report(bad, config=config)


def _longest_field(model: Model) -> str | None:
    """The field whose samples differ in length, if there is one."""
    text, audio = model.config.text, model.config.audio
    stem = audio if audio is not None else text
    return None if stem is None else stem.field


def groups_of(batch: dict[str, Column], *, model: Model, config: EvalConfig) -> dict[str, Array]:
    """Which samples belong to which declared group, as masks [B]."""
    groups: dict[str, Array] = {}
    for name in config.slice_columns:
        if name not in batch:
            raise ConfigError(
                f"eval.slice_columns: the data has no field {name!r}",
                hint=nearest(name, batch, what="rsc data show"),
            )
        values = _as_texts(batch[name])
        for value in sorted(set(values))[:MAX_GROUPS]:
            groups[f"{name}={value}"] = np.array([v == value for v in values])
    text = model.config.text
    if config.slice_terms and text is not None:
        texts = _as_texts(batch[text.field])
        for name, words in config.slice_terms.items():
            pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
            groups[name] = np.array([bool(pattern.search(t)) for t in texts])
    return groups


def _as_texts(column: Column) -> list[str]:
    if isinstance(column, RaggedTensor):
        return [data.decode(errors="replace") for data in column.to_bytes()]
    return [str(value) for value in column.tolist()]

"""Which loader feeds a model: documents packed into sequences for next-token models, else whole samples.

Ranks that differ on tp, cp or pp read the same samples; each of them cuts out its own part later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from rsc.loader.loader import Loader
from rsc.loader.pack import PackedLoader
from rsc.parallel.layout import Layout
from rsc.store.dataset import Dataset
from rsc.store.secret import SecretKey
from rsc.train.binding import check_fields, fields_of
from rsc.train.loop import BatchSource
from rsc.train.recipe import Recipe


def open_source(recipe: Recipe, data: Path, *, key: SecretKey, layout: Layout, rank: int) -> BatchSource:
    """The endless stream of this rank's batches, one per backward pass."""
    config = recipe.data
    split = Dataset.open(data, name=config.name, version=config.version).split(config.split, key=key)
    common: dict[str, Any] = {
        "batch_size": recipe.train.batch_size // (layout.dp * recipe.train.accumulate),
        "rank": layout.dp_rank(rank),
        "world_size": layout.dp,
        "seed": config.seed,
        "window_bytes": config.window_bytes,
        "lanes": config.lanes,
        "threads": config.threads,
    }
    if recipe.model.head.kind == "next_token":
        return PackedLoader(
            split,
            sequence_length=config.sequence_length,
            field=config.text_field,
            separator=config.separator,
            **common,
        )
    check_fields(split.schema, config=recipe.model)
    return cast(BatchSource, Loader(split, fields=config.fields or fields_of(recipe.model), **common))

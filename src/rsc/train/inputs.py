"""Which loader feeds a model: documents packed into sequences for next-token models, else whole samples, with
encoded pictures unpacked on threads while the step before them runs.

Ranks that differ on tp, cp or pp read the same samples; each of them cuts out its own part later.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

from rsc.loader.decode import DecodedLoader
from rsc.loader.loader import Loader
from rsc.loader.pack import PackedLoader
from rsc.models.config import ImageConfig
from rsc.models.decode import decode_image
from rsc.parallel.layout import Layout
from rsc.store.dataset import Dataset
from rsc.store.schema import Schema
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
    fields = config.fields or fields_of(recipe.model)
    image = recipe.model.image
    if image is None or not _is_encoded(split.schema, field=image.field):
        return cast(BatchSource, Loader(split, fields=fields, **common))
    decoded = DecodedLoader(
        Loader(split, fields=fields, numbered=True, **common),
        field=image.field,
        decode=partial(decode_image, config=image),
        shape=pixels(image),
        threads=max(1, config.threads),
    )
    return cast(BatchSource, decoded)


def pixels(config: ImageConfig) -> tuple[int, int, int]:
    """Shape of one picture as the stem wants it."""
    return config.height, config.width, config.channels


def _is_encoded(schema: Schema, *, field: str) -> bool:
    return any(item.name == field and item.kind != "tensor" for item in schema.fields)

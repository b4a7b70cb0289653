"""Which loader feeds a model: documents packed into sequences for next-token models, else whole samples, with
encoded pictures unpacked on threads while the step before them runs.

Several data sets are mixed by weight (loader/mix.py); their pictures are unpacked in the step that uses them,
because how many come from each set differs from step to step. Ranks that differ on tp, cp or pp read the same
samples; each of them cuts out its own part later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from rsc.keys.secret import SecretKey
from rsc.loader.config import DataConfig
from rsc.loader.decode import DecodedLoader
from rsc.loader.loader import Loader
from rsc.loader.mix import MixChange, MixedLoader, MixSource
from rsc.loader.pack import PackedLoader
from rsc.models.config import ImageConfig
from rsc.models.decode import decode_image
from rsc.parallel.mesh import Mesh
from rsc.recipes.data_fit import fields_of
from rsc.recipes.recipe import Recipe
from rsc.store.bulk.locations import Location
from rsc.store.cache.node_cache import ShardCache
from rsc.store.dataset import Dataset
from rsc.store.format.schema import Schema
from rsc.train.batches.batch_source import BatchSource


@dataclass(frozen=True)
class DataPlace:
    """Where a worker finds data sets: a folder that it sees, or the node's cache and who fills it."""

    location: Location
    cache: ShardCache | None = None

    def open(self, config: DataConfig) -> Dataset:
        return Dataset.open(self.location, name=config.name, version=config.version, cache=self.cache)


def open_source(recipe: Recipe, data: DataPlace, *, keys: Mapping[str, SecretKey], mesh: Mesh) -> BatchSource:
    """The endless stream of this rank's batches, one per backward pass. `keys` by name of the data set.

    Its state is asked for by all ranks together: those of packed documents agree on it.
    """
    config, layout = recipe.data, mesh.layout
    batch_size = recipe.train.batch_size // (layout.dp * recipe.train.accumulate)
    place = {"batch_size": batch_size, "rank": layout.dp_rank(mesh.rank), "world_size": layout.dp}
    sources = {
        each.name: _open_set(recipe, each, data, key=keys[each.name], place=place, device=mesh.device)
        for each in config.sets
    }
    if len(sources) == 1:
        return sources[config.name]
    changes = [MixChange(start, weights) for start, weights in config.weights]
    mixed = MixedLoader(
        cast(Mapping[str, MixSource], sources), changes=changes, batch_size=batch_size, world_size=layout.dp
    )
    return cast(BatchSource, mixed)


def _open_set(
    recipe: Recipe,
    config: DataConfig,
    data: DataPlace,
    *,
    key: SecretKey,
    place: Mapping[str, int],
    device: torch.device,
) -> BatchSource:
    """One data set, in an order of its own."""
    split = data.open(config).split(config.split, key=key)
    common: dict[str, Any] = {
        **place,
        "seed": config.seed,
        "window_bytes": config.window_bytes,
        "lanes": config.lanes,
        "threads": config.threads,
        "connections": config.connections,
    }
    if recipe.model.task.is_language:
        return PackedLoader(
            split,
            sequence_length=config.sequence_length,
            field=config.text_field,
            separator=config.separator,
            vocabulary=recipe.model.text.vocabulary if recipe.model.text is not None else None,
            agree=partial(largest_of_all, device=device),
            **common,
        )
    fields = config.fields or fields_of(recipe.model)
    image = recipe.model.image
    if recipe.data.mix_with or image is None or not _is_encoded(split.schema, field=image.field):
        return cast(BatchSource, Loader(split, fields=fields, **common))
    decoded = DecodedLoader(
        Loader(split, fields=fields, numbered=True, **common),
        field=image.field,
        decode=partial(decode_image, config=image),
        shape=pixels(image),
        threads=max(1, config.threads),
    )
    return cast(BatchSource, decoded)


def largest_of_all(numbers: NDArray[np.int64], *, device: torch.device) -> NDArray[np.int64]:
    """The largest of all ranks at each place. Every rank calls it; the group works on tensors on `device`."""
    largest = torch.from_numpy(numbers).to(device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.cpu().numpy()


def pixels(config: ImageConfig) -> tuple[int, int, int]:
    """Shape of one picture as the stem wants it."""
    return config.height, config.width, config.channels


def _is_encoded(schema: Schema, *, field: str) -> bool:
    return any(item.name == field and item.kind != "tensor" for item in schema.fields)

"""What a model counts in its training split before its first step: how often each class occurs, and in how
many texts each n-gram is (`model.head.balance`, `model.bag`).

One pass, shared out over the ranks by shards, whatever the mesh; the sums go into buffers of the head, so
that checkpoints and exports carry them and later starts count nothing. Held-out splits are never read. The
sets of a mixture count as they are, whatever their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.distributed as dist
from torch import nn

from rsc.keys.secret import SecretKey
from rsc.loader.config import DataConfig
from rsc.models.bag_of_ngrams import count_texts
from rsc.models.build import Batch
from rsc.models.config import ModelConfig
from rsc.parallel.mesh import Mesh
from rsc.recipes.recipe import Recipe
from rsc.store.format.columns import Columns
from rsc.train.batches.collate import Binder
from rsc.train.batches.frame_batches import batches_of
from rsc.train.batches.loaders import DataPlace

_BATCH = 256  # samples bound at once; only memory depends on it

Counts = dict[str, torch.Tensor]
"""By the name of the buffer, int64."""


def count_training_data(
    modules: Iterable[nn.Module],
    *,
    recipe: Recipe,
    data: DataPlace,
    keys: Mapping[str, SecretKey],
    mesh: Mesh,
    beat: Callable[[], None],
) -> None:
    """Fill the buffers of what this rank holds of the model. `beat` is called for every batch counted."""
    counts = fresh_counts(recipe.model)
    if not counts:
        return
    binder = Binder(recipe.model)
    for config in recipe.data.sets:
        frames = _share(config, data, key=keys[config.name], mesh=mesh)
        for batch in batches_of(frames, batch_size=_BATCH):
            add_counts(counts, binder.bind(batch).batch, config=recipe.model)
            beat()
    for count in counts.values():
        if mesh.layout.world > 1:
            moved = count.to(mesh.device)
            dist.all_reduce(moved)
            count.copy_(moved)
    fill_counts(modules, counts)


def fresh_counts(config: ModelConfig) -> Counts:
    """Zeros for what a model of this kind counts; empty for one that counts nothing."""
    counts: Counts = {}
    if config.head.balance:
        counts["head.class_counts"] = torch.zeros(len(config.head.labels), dtype=torch.int64)
    if config.bag is not None and config.bag.num_tables:
        counts["head.bag.texts_with"] = torch.zeros(
            config.bag.num_tables * config.bag.rows, dtype=torch.int64
        )
        counts["head.bag.num_texts"] = torch.zeros(1, dtype=torch.int64)
    return counts


def add_counts(counts: Counts, batch: Batch, *, config: ModelConfig) -> None:
    """One bound batch. A sample without a usable label is of no class, but its text is a text."""
    if "head.class_counts" in counts:
        known = batch["label_B"][batch["label_B"] >= 0]
        counts["head.class_counts"] += known.bincount(minlength=len(config.head.labels))
    if config.bag is not None and "head.bag.texts_with" in counts:
        tokens_BL, length_B = batch["tokens_BL"], batch["text_length_B"]
        counts["head.bag.texts_with"] += count_texts(tokens_BL, length_B=length_B, config=config.bag)
        counts["head.bag.num_texts"] += len(length_B)


def fill_counts(modules: Iterable[nn.Module], counts: Counts) -> None:
    """A pipeline rank without the head has none of these buffers."""
    for module in modules:
        for name, buffer in module.named_buffers():
            if name in counts:
                buffer.copy_(counts[name])


def _share(config: DataConfig, data: DataPlace, *, key: SecretKey, mesh: Mesh) -> Iterator[Columns]:
    """Frames of this rank's shards."""
    split = data.open(config).split(config.split, key=key)
    try:
        yield from split.iterate(shards=range(mesh.rank, split.num_shards, mesh.layout.world))
    finally:
        split.close()

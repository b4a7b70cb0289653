"""Which data a run reads, and how. The recipe's section [data]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Weight = Annotated[int, Field(ge=0)]


class MixedSet(BaseModel):
    """One more data set of a mixture. It is read as the first one: split, fields, seed, window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Data set in the workspace."""
    version: int | None = Field(default=None, ge=1)
    """As `data.version`."""
    weight: Weight = 1
    """Samples of it for every `data.weight` samples of the first set."""


class WeightChange(BaseModel):
    """From a sample number on, other weights. One may be added to a run that has not come there yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(ge=1)
    """Sample of the mixed stream, over all ranks; applies from the first step that begins there or later."""
    weights: dict[str, Weight]
    """Weight of each data set, by name."""


class DataConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Data set in the workspace."""
    version: int | None = Field(default=None, ge=1)
    """Version of it; the newest approved one when not given. The resolved recipe always has a number."""
    split: str = "train"
    """Split to train on."""
    fields: tuple[str, ...] | None = None
    """Fields of a sample to deliver; all when null."""
    text_field: str = "text"
    """Field that is packed into sequences: kind string, bytes or tokens. Only read by language recipes."""
    sequence_length: int = Field(default=1024, ge=2)
    """Tokens in a packed sequence."""
    separator: int = Field(default=256, ge=0)
    """Token put before every document when packing. 256 for bytes; a tokenizer's own for token fields."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of the order; with the data set version it fixes what every step sees."""
    window_bytes: int = Field(default=32 << 20, ge=1 << 16)
    """Plaintext that is shuffled together, over all ranks; memory holds it once, with threads twice. Bigger
    mixes better: with 32 MiB a batch of 256 draws from about 110 frames, with 8 MiB from 32. Samples that
    vary are reckoned by their mean: a stretch of larger ones takes as much more."""
    lanes: int | None = Field(default=None, ge=1)
    """Parallel streams of the order; by default up to 64. Data-parallel ranks should divide it: then no frame
    is read twice, packed or not. Part of the order: a run cannot change it half way."""
    threads: int = Field(default=0, ge=0)
    """Threads of a rank that read and decrypt the next window beside training; 0 does it when the batch is
    asked for, some 15 ms a window of 32 MiB. Each has one read in flight: slow storage wants a few."""
    connections: int = Field(default=16, ge=1)
    """Requests in flight that fill a node's cache, where the data is read through one."""
    weight: Weight = 1
    """Share of this data set in a mixture."""
    mix_with: tuple[MixedSet, ...] = ()
    """Further data sets, mixed in by weight. Each needs its own approval. Evaluation reads the first set."""
    weight_changes: tuple[WeightChange, ...] = ()
    """Weights that change during the run, in the order of their starts."""

    @property
    def sets(self) -> tuple[DataConfig, ...]:
        """One configuration for each data set, without its mixture; the first is this one's own."""
        alone = {"mix_with": (), "weight_changes": ()}
        others = (
            {"name": other.name, "version": other.version, "weight": other.weight} for other in self.mix_with
        )
        return tuple(self.model_copy(update=alone | about) for about in ({}, *others))

    @property
    def weights(self) -> list[tuple[int, Mapping[str, int]]]:
        """(from which sample on, the weight of each set)."""
        first = {each.name: each.weight for each in self.sets}
        return [(0, first), *((change.start, change.weights) for change in self.weight_changes)]

    @model_validator(mode="after")
    def _can_be_mixed(self) -> Self:
        names = [self.name, *(other.name for other in self.mix_with)]
        if len(set(names)) < len(names):
            raise ValueError(f"mix_with names a data set twice: {', '.join(names)}")
        starts = [start for start, _ in self.weights]
        if sorted(set(starts)) != starts:
            raise ValueError(f"weight_changes start at {starts[1:]}: each must be later than the one before")
        for start, weights in self.weights:
            if set(weights) != set(names):
                raise ValueError(f"weights {dict(weights)} at sample {start} must name {', '.join(names)}")
            if not sum(weights.values()):
                raise ValueError(f"weights {dict(weights)} at sample {start}: at least one must be above 0")
        return self

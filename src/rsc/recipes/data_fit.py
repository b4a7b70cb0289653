"""Whether the samples of a data set fit a model: told before there is a run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsc.errors import ConfigError
from rsc.layers import nearest
from rsc.models.config import ModelConfig
from rsc.store.dataset import Dataset
from rsc.store.format.schema import Field, Schema


@dataclass(frozen=True)
class StoredTokenizer:
    vocabulary: int
    sha256: str | None
    """None where the import was made before that was written down."""
    path: str
    """Where the import found it."""


@dataclass(frozen=True)
class SplitSamples:
    """What root.json says of the samples of a split, without a key."""

    schema: Schema
    sample_rate: int | None = None
    """Hz of sound that the import decoded; files of sound know their own."""
    tokenizer: StoredTokenizer | None = None
    """What the ids of field `text` are; None for text, and for ids that came from elsewhere."""


def samples_of(dataset: Dataset, *, split: str) -> SplitSamples:
    """Raises ConfigError for an unknown split."""
    if split not in dataset.splits:
        raise ConfigError(
            f"{dataset.name} has no split {split!r}", hint=nearest(split, dataset.splits, what="data.split")
        )
    options = dataset.facts.get("options") or {}
    return SplitSamples(
        dataset.splits[split].schema,
        sample_rate=options.get("sample_rate"),
        tokenizer=stored_tokenizer(dataset),
    )


def stored_tokenizer(dataset: Dataset) -> StoredTokenizer | None:
    """What an import that stored texts as ids wrote down of its tokenizer."""
    found, options = dataset.facts.get("tokenizer"), dataset.facts.get("options") or {}
    if not found:
        return None
    path = str(options.get("tokenizer", "FILE"))
    return StoredTokenizer(int(found["vocabulary"]), found.get("sha256"), path)


def fields_of(config: ModelConfig) -> tuple[str, ...]:
    """The fields of a sample that training reads."""
    stems = [stem.field for stem in (config.image, config.audio, config.text) if stem is not None]
    return tuple(dict.fromkeys([*stems, *config.task.answer_fields]))


def check_fields(samples: SplitSamples, *, model: ModelConfig, text_field: str) -> None:
    """Raises ConfigError for a field that is not there, or in a shape or at a rate that never fits.

    `text_field` is what a language model reads (`data.text_field`).
    """
    fields = {item.name: item for item in samples.schema.fields}
    if model.task.is_language:
        _field(fields, text_field, what="data.text_field")
        return
    if model.image is not None:
        shape = (model.image.height, model.image.width, model.image.channels)
        _fits(_field(fields, model.image.field, what="model.image.field"), shape=shape)
    if model.audio is not None:
        sound = _field(fields, model.audio.field, what="model.audio.field")
        if sound.kind == "tokens":
            _sounds(sound, rate=samples.sample_rate, wanted=model.audio.sample_rate)
    if model.text is not None:
        _field(fields, model.text.field, what="model.text.field")
    for name in model.task.answer_fields:
        answer = _field(fields, name, what="model.head.field")
        if model.task.answer_shape is not None:
            _fits(answer, shape=model.task.answer_shape)


def _field(fields: Mapping[str, Field], name: str, *, what: str) -> Field:
    if name not in fields:
        raise ConfigError(
            f"the data has no field {name!r}", hint=f"{what}: {nearest(name, fields, what=what)}"
        )
    return fields[name]


def _fits(item: Field, *, shape: tuple[int, ...]) -> None:
    if item.kind == "tensor" and item.shape != shape:
        raise ConfigError(
            f"field {item.name} holds {list(item.shape)}, the model wants {list(shape)}",
            hint="change the model's sizes, or import the data again with the sizes it wants",
        )


def _sounds(item: Field, *, rate: int | None, wanted: int) -> None:
    if rate is not None and rate != wanted:
        raise ConfigError(
            f"field {item.name} was decoded at {rate} Hz, the model wants {wanted}",
            hint=f"set model.audio.sample_rate={rate}, or import the data again with sample_rate={wanted}",
        )

"""Apply a trained model to samples of a file, a folder or standard input: answers and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rsc.errors import ConfigError, DataError
from rsc.evaluate.open_model import Trained
from rsc.evaluate.sample_files import read_samples
from rsc.evaluate.scorers import LABEL_SCORERS
from rsc.models.heads import Want
from rsc.train.batches.collate import STILL_USED, Binder


@dataclass(frozen=True)
class Prediction:
    sample: int
    place: str
    """Where the sample is from: `cat.jpg`, `posts.csv row 3`."""
    answer: str
    """A label, several joined by `, `, or the words that were heard; empty where the model's only input could
    not be read."""
    confidence: float | None
    """Probability of the answer; None where a model gives none (sequences)."""
    probabilities: dict[str, float]
    problems: tuple[str, ...] = ()
    """What was wrong with the sample, by the words of train/batches/collate.py."""


@torch.no_grad()
def predict(trained: Trained, *, source: str, text_field: str | None = None) -> Iterator[Prediction]:
    """One prediction per sample, one sample at a time. Raises ConfigError for a model that does not sort
    samples, DataError for a source that holds none."""
    config = trained.config
    if not config.task.answers_field:
        raise ConfigError(
            f"{trained.name} has a {config.head.kind} head and sorts no samples",
            hint="a language model answers `rsc generate`" if config.task.is_language else None,
        )
    stems = [stem for stem in (config.image, config.audio, config.text) if stem is not None]
    scorer = LABEL_SCORERS[config.head.kind](config.head.labels)
    binder, device = Binder(config), next(trained.model.parameters()).device
    number = 0
    for number, sample in enumerate(read_samples(source, config=config, text_field=text_field), start=1):
        bound = binder.bind(sample.columns, with_answers=False)
        batch = {name: value.to(device) for name, value in bound.batch.items()}
        outputs = trained.model(batch, Want.LOGITS)
        problems = tuple(+bound.bad)
        if len(stems) == 1 and not STILL_USED.issuperset(problems):
            yield Prediction(number, sample.place, "", None, {}, problems)
        else:
            yield Prediction(number, sample.place, *scorer.read(outputs), problems)
    if not number:
        raise DataError(f"{source} holds no sample")

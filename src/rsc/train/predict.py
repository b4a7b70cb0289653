"""Apply a trained model to one file: what it says, and how sure it is.

| model reads | file                                                        |
|-------------|-------------------------------------------------------------|
| text        | .jsonl with the model's text field, else one sample a line  |
| image       | one picture                                                 |
| sound       | one recording                                               |
| several     | .jsonl; picture and sound fields hold paths beside the file |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsc.errors import ConfigError, DataError
from rsc.loader.ragged import RaggedTensor
from rsc.models.config import ModelConfig
from rsc.models.heads import Want
from rsc.train.binding import Binder, Column
from rsc.train.evaluate_samples import read_symbols
from rsc.train.trained import Trained


@dataclass(frozen=True)
class Prediction:
    sample: int
    answer: str
    """A label, several joined by `, `, or the words that were heard."""
    confidence: float | None
    """Probability of the answer; None where a model gives none (sequences)."""
    probabilities: dict[str, float]
    problems: tuple[str, ...] = ()
    """What was wrong with the sample, by the words of train/binding.py."""


@torch.no_grad()
def predict(trained: Trained, *, file: Path) -> Iterator[Prediction]:
    """One prediction per sample, one sample at a time. Raises ConfigError for a model that does not sort
    samples, DataError for a file that holds none."""
    config = trained.config
    if config.head.kind not in ("classes", "multi_label", "ctc"):
        raise ConfigError(
            f"{trained.name} has a {config.head.kind} head and sorts no samples",
            hint="a language model answers `rsc generate`" if config.head.kind == "next_token" else None,
        )
    binder, device = Binder(config), next(trained.model.parameters()).device
    number = 0
    for number, sample in enumerate(read_samples(file, config=config), start=1):
        bound = binder.bind(sample, with_answers=False)
        batch = {name: value.to(device) for name, value in bound.batch.items()}
        outputs = trained.model(batch, Want.LOGITS)
        yield _prediction(number, outputs, config=config, problems=tuple(+bound.bad))
    if not number:
        raise DataError(f"{file} holds no sample")


def read_samples(file: Path, *, config: ModelConfig) -> Iterator[dict[str, Column]]:
    """Each sample of the file as a batch of one."""
    stems = [stem for stem in (config.image, config.audio, config.text) if stem is not None]
    if len(stems) == 1 and stems[0] is not config.text:
        yield {stems[0].field: _bytes(_read(file))}
        return
    for line in _read(file).splitlines():
        if not line.strip():
            continue
        if file.suffix == ".jsonl":
            yield _record(line, file=file, config=config)
        elif len(stems) == 1:
            yield {stems[0].field: _bytes(line)}
        else:
            raise ConfigError(f"{file.name}: a model of several inputs takes a .jsonl file")


def _record(line: bytes, *, file: Path, config: ModelConfig) -> dict[str, Column]:
    try:
        values: dict[str, Any] = json.loads(line)
        sample: dict[str, Column] = {}
        if config.text is not None:
            sample[config.text.field] = _bytes(str(values[config.text.field]).encode())
        for stem in (config.image, config.audio):
            if stem is not None:
                name = values.get(stem.field)
                sample[stem.field] = _bytes(_read(file.parent / name) if name else b"")
        return sample
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file.name}: a line is not a JSON object with the model's fields: {error}"
        ) from None


def _prediction(
    number: int, outputs: dict[str, torch.Tensor], *, config: ModelConfig, problems: tuple[str, ...]
) -> Prediction:
    labels, logits = config.head.labels, outputs["logits"].float().cpu()
    if config.head.kind == "ctc":
        heard = read_symbols(logits, lengths=outputs["lengths"].cpu(), labels=labels)[0]
        return Prediction(number, heard, None, {}, problems)
    several = config.head.kind == "multi_label"
    shares = (logits[0].sigmoid() if several else logits[0].softmax(-1)).tolist()
    probabilities = dict(zip(labels, shares, strict=True))
    if several:
        said = [name for name, p in probabilities.items() if p > 0.5]
        return Prediction(number, ", ".join(said), None, probabilities, problems)
    best = max(probabilities, key=probabilities.__getitem__)
    return Prediction(number, best, probabilities[best], probabilities, problems)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _bytes(data: bytes) -> RaggedTensor:
    values = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    )
    return RaggedTensor(values=values, starts=torch.tensor([0]), stops=torch.tensor([len(data)]))

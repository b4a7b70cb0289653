"""Apply a trained model to one file: what it says, and how sure it is.

| model reads | file                                                        |
|-------------|-------------------------------------------------------------|
| text        | .jsonl with the model's text field, or text: a sample a line|
| image       | one picture                                                 |
| sound       | one recording                                               |
| several     | .jsonl; picture and sound fields hold paths beside the file |
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsc.errors import ConfigError, DataError
from rsc.evaluate.open_model import Trained
from rsc.evaluate.scorers import LABEL_SCORERS
from rsc.loader.ragged import RaggedTensor
from rsc.models.config import AudioConfig, ImageConfig, ModelConfig, TextConfig
from rsc.models.heads import Want
from rsc.train.batches.collate import STILL_USED, Binder, Column

_TABLES = (".csv", ".tsv", ".json", ".parquet")  # their lines are no samples


@dataclass(frozen=True)
class Prediction:
    sample: int
    answer: str
    """A label, several joined by `, `, or the words that were heard; empty where the model's only input could
    not be read."""
    confidence: float | None
    """Probability of the answer; None where a model gives none (sequences)."""
    probabilities: dict[str, float]
    problems: tuple[str, ...] = ()
    """What was wrong with the sample, by the words of train/batches/collate.py."""


@torch.no_grad()
def predict(trained: Trained, *, file: Path) -> Iterator[Prediction]:
    """One prediction per sample, one sample at a time. Raises ConfigError for a model that does not sort
    samples, DataError for a file that holds none."""
    config = trained.config
    if not config.task.answers_field:
        raise ConfigError(
            f"{trained.name} has a {config.head.kind} head and sorts no samples",
            hint="a language model answers `rsc generate`" if config.task.is_language else None,
        )
    scorer = LABEL_SCORERS[config.head.kind](config.head.labels)
    binder, device = Binder(config), next(trained.model.parameters()).device
    number = 0
    for number, sample in enumerate(read_samples(file, config=config), start=1):
        bound = binder.bind(sample, with_answers=False)
        batch = {name: value.to(device) for name, value in bound.batch.items()}
        outputs = trained.model(batch, Want.LOGITS)
        problems = tuple(+bound.bad)
        if len(_stems(config)) == 1 and not STILL_USED.issuperset(problems):
            yield Prediction(number, "", None, {}, problems)
        else:
            yield Prediction(number, *scorer.read(outputs), problems)
    if not number:
        raise DataError(f"{file} holds no sample")


def require_file(path: Path) -> None:
    """Raise ConfigError for what is no file, with one that is."""
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file())
        hint = f"name one file in it, for example {files[0]}" if files else "it holds no files"
        raise ConfigError(f"{path} is a folder", hint=hint)
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else f"looked in {path.parent.absolute()}"
        raise ConfigError(f"{path} does not exist", hint=hint)


def read_samples(file: Path, *, config: ModelConfig) -> Iterator[dict[str, Column]]:
    """Each sample of the file as a batch of one. Raises ConfigError for a file that cannot be read or is of
    another kind than the model reads, DataError for a line that is no sample."""
    stems = _stems(config)
    if len(stems) == 1 and stems[0] is not config.text:
        if file.suffix in (".jsonl", ".txt", *_TABLES):
            raise ConfigError(
                f"{file.name} is text, and {stems[0].field!r} is all that the model reads",
                hint="give one picture or recording",
            )
        yield {stems[0].field: _bytes(_read(file))}
        return
    if file.suffix in _TABLES:
        raise ConfigError(f"{file.name} is no text of one sample a line", hint=_line_hint(config))
    for number, line in enumerate(_read(file).splitlines(), start=1):
        if not line.strip():
            continue
        if file.suffix == ".jsonl":
            yield _record(line, place=f"{file.name} line {number}", folder=file.parent, config=config)
        elif len(stems) == 1:
            yield {stems[0].field: _bytes(line)}
        else:
            raise ConfigError(
                f"{file.name}: a model of several inputs takes a .jsonl file", hint=_line_hint(config)
            )


def _record(line: bytes, *, place: str, folder: Path, config: ModelConfig) -> dict[str, Column]:
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}", hint=_line_hint(config)) from None
    if not isinstance(values, dict):
        raise DataError(f"{place} is not a JSON object", hint=_line_hint(config))
    sample: dict[str, Column] = {}
    if config.text is not None:
        if config.text.field not in values:
            raise DataError(f"{place} has no field {config.text.field!r}", hint=_line_hint(config))
        text = values[config.text.field]
        sample[config.text.field] = _bytes(("" if text is None else str(text)).encode())
    for stem in (config.image, config.audio):
        if stem is not None:
            name = values.get(stem.field)
            if not isinstance(name, str | None):
                raise DataError(f"{place}: {stem.field!r} is no path", hint=_line_hint(config))
            sample[stem.field] = _bytes(_read(folder / name) if name else b"")
    return sample


def _line_hint(config: ModelConfig) -> str:
    """A line that the model can read."""
    fields = {stem.field: "a path" for stem in (config.image, config.audio) if stem is not None}
    line = {config.text.field: "a text", **fields} if config.text is not None else fields
    return f"a .jsonl file has one object a line: {json.dumps(line)}"


def _stems(config: ModelConfig) -> list[ImageConfig | AudioConfig | TextConfig]:
    return [stem for stem in (config.image, config.audio, config.text) if stem is not None]


def _read(path: Path) -> bytes:
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _bytes(data: bytes) -> RaggedTensor:
    values = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    )
    return RaggedTensor(values=values, offsets=torch.tensor([0, len(data)]))

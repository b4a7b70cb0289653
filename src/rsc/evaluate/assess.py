"""Evaluate a trained model on a split and keep the result beside the run, for the model card."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rsc.durable import replace_file
from rsc.errors import ConfigError, DataError
from rsc.evaluate.language import Document, evaluate_language, xz_bits_per_byte
from rsc.evaluate.measures import Measure
from rsc.evaluate.open_model import Trained
from rsc.evaluate.samples import evaluate_samples
from rsc.evaluate.scorers import SampleReport
from rsc.recipes.sections import EvalConfig
from rsc.store.format.columns import Columns, Ragged, slice_columns
from rsc.store.splits import SplitReader
from rsc.untrusted import UntrustedFolder

FILE = "evaluation.json"


@dataclass(frozen=True)
class Assessment:
    """What `rsc eval` prints and the model card quotes. Holds no text of any sample."""

    name: str
    step: int | None
    data: str
    version: int
    split: str
    precision: str
    count: int
    """Items measured: bytes for language, samples otherwise."""
    measures: dict[str, Measure]
    xz_bits_per_byte: float | None = None
    """`xz -9` of the same bytes; language only."""
    details: SampleReport | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Flat figures first (`bits_per_byte`), then each with its interval under `measures`."""
        figures = {name: measure.value for name, measure in self.measures.items()}
        return {**figures, **asdict(self)}


def assess(
    trained: Trained, *, reader: SplitReader, data: str, version: int, split: str, config: EvalConfig
) -> Assessment:
    """Measure on one split. Raises DataError when nothing in it can be measured."""
    facts: dict[str, Any] = {"name": trained.name, "step": trained.step, "data": data, "version": version}
    facts |= {"split": split, "precision": trained.precision.name}
    columns = _limited(reader.iterate(), samples=config.max_batches * config.batch_size)
    if not trained.config.task.is_language:
        report = evaluate_samples(trained.model, columns=columns, config=config)
        return Assessment(**facts, count=report.count, measures=report.measures, details=report)
    documents = list(_documents(columns, trained=trained))
    language = evaluate_language(
        trained.model,
        documents=[document for document, _ in documents],
        separator=_separator(trained),
        context=trained.context,
        batch_size=config.batch_size,
        overlap=config.overlap,
    )
    return Assessment(
        **facts,
        count=language.num_bytes,
        measures={"bits_per_byte": language.bits_per_byte, "loss": language.loss},
        xz_bits_per_byte=xz_bits_per_byte(text for _, text in documents),
    )


def keep(assessment: Assessment, *, folder: Path) -> Path:
    """Write it whole beside the run (write, fsync, rename); the last evaluation of a split stands."""
    path = folder / FILE
    kept = {**kept_in(folder), assessment.split: assessment.to_json()}
    replace_file(path, json.dumps(kept, indent=1).encode())
    return path


def kept_in(folder: Path) -> dict[str, Any]:
    """Evaluations beside a run by split; none when there is no file. Raises DataError for another file."""
    try:
        return dict(json.loads(UntrustedFolder(folder).read(FILE)))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            f"{FILE} of run {folder.name} holds no evaluations",
            hint=f"move {folder / FILE} away, then `rsc eval {folder.name}` writes it anew",
        ) from None


def _limited(columns: Iterable[Columns], *, samples: int) -> Iterator[Columns]:
    """The first `samples` samples; 0: all."""
    left = samples
    for frame in columns:
        count = len(next(iter(frame.values())))
        if samples and count >= left:
            yield slice_columns(frame, 0, left)
            return
        yield frame
        left -= count


def _documents(columns: Iterable[Columns], *, trained: Trained) -> Iterator[tuple[Document, bytes]]:
    """Each document as ids with its closing separator, and as bytes."""
    tokenizer, separator = trained.tokenizer(), _separator(trained)
    for frame in columns:
        column = frame[trained.text_field]
        if not isinstance(column, Ragged):
            raise ConfigError(f"field {trained.text_field} holds no text", hint="set data.text_field")
        for index in range(len(column)):
            values = column[index]
            is_text = values.dtype == np.uint8
            text = values.tobytes() if is_text else tokenizer.decode(values.tolist()).encode()
            ids = tokenizer.encode(text.decode(errors="replace")) if is_text else values.tolist()
            yield Document([*ids, separator], size_bytes=len(text) + 1), text


def _separator(trained: Trained) -> int:
    """Raises ConfigError for weights that name no end of a document: each is scored for ending, too."""
    separator = trained.tokenizer().separator if trained.separator is None else trained.separator
    if separator is None:
        raise ConfigError(
            f"{trained.name} names no token that ends a document",
            hint="its config.json wants eos_token_id",
        )
    return separator

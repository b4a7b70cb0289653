"""Measure a model on held-out data.

Language: a document is scored in windows of the trained length that overlap (by half unless told
otherwise); a window scores only what the one before it did not, so that all but a document's first
tokens have at least that much context. A document starts after a separator and pays for the one that
ends it.
Shapes: B windows, L positions.
"""

from __future__ import annotations

import itertools
import lzma
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rsc.errors import DataError
from rsc.evaluate.measures import Measure, ratio
from rsc.models.build import Model
from rsc.models.cross_entropy import IGNORED
from rsc.models.heads import Want

XZ_PRESET = 9  # what `xz -9` uses
POOL_BATCHES = 64  # windows of so many batches are sorted by length: short ones share a batch


@dataclass(frozen=True)
class Document:
    """Token ids of one document, its closing separator included, and its size in bytes, the separator
    counting as one byte."""

    ids: Sequence[int]
    size_bytes: int


@dataclass(frozen=True)
class LanguageReport:
    """Intervals are over documents."""

    bits_per_byte: Measure
    loss: Measure
    """Nats per token."""
    perplexity: float
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True)
class _Window:
    document: int
    inputs: Sequence[int]
    targets: Sequence[int]
    skip: int
    """Leading targets that an earlier window has scored."""


@torch.no_grad()
def evaluate_language(
    model: Model,
    *,
    documents: Iterable[Document],
    separator: int,
    context: int,
    batch_size: int,
    overlap: float = 0.5,
) -> LanguageReport:
    """Score every document, in batches of `batch_size` windows. Raises DataError when there is none."""
    held = [document for document in documents if len(document.ids)]
    if not held:
        raise DataError("nothing to evaluate: the split holds no document", hint="name a split with records")
    nats_of_document = np.zeros(len(held))
    stride = max(1, round(context * (1 - overlap)))
    windows = _windows(held, separator=separator, context=context, stride=stride)
    device = next(model.parameters()).device
    for some in _batches(windows, size=batch_size):
        losses_B = model(_batch(some, device=device), Want.ITEM_LOSSES)["losses"].sum(1).cpu().numpy()
        np.add.at(nats_of_document, [window.document for window in some], losses_B)
    tokens = np.array([len(document.ids) for document in held])
    sizes = np.array([document.size_bytes for document in held])
    loss = ratio(nats_of_document, sizes_N=tokens)
    return LanguageReport(
        bits_per_byte=ratio(nats_of_document / math.log(2), sizes_N=sizes),
        loss=loss,
        perplexity=math.exp(loss.value),
        num_tokens=int(tokens.sum()),
        num_bytes=int(sizes.sum()),
    )


def xz_bits_per_byte(documents: Iterable[bytes], *, separator: bytes = b"\0") -> float:
    """Bits per byte of `xz -9` on the documents in a row, each closed by one separator byte.

    A reference that anybody can repeat; xz sees all documents as one stream and learns from them as it goes.
    """
    data = b"".join(document + separator for document in documents)
    return 8 * len(lzma.compress(data, preset=XZ_PRESET)) / len(data)


def _windows(
    documents: Sequence[Document], *, separator: int, context: int, stride: int
) -> Iterator[_Window]:
    for number, document in enumerate(documents):
        inputs, targets = [separator, *document.ids[:-1]], document.ids
        scored = 0
        while scored < len(targets):
            start = 0 if scored == 0 else scored - (context - stride)
            end = min(start + context, len(targets))
            yield _Window(number, inputs[start:end], targets[start:end], skip=scored - start)
            scored = end


def _batches(windows: Iterator[_Window], *, size: int) -> Iterator[Sequence[_Window]]:
    while pool := list(itertools.islice(windows, POOL_BATCHES * size)):
        pool.sort(key=lambda window: len(window.inputs))
        yield from (pool[start : start + size] for start in range(0, len(pool), size))


def _batch(windows: Sequence[_Window], *, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows padded at their end: in a causal model nothing that counts looks there."""
    length = max(len(window.inputs) for window in windows)
    tokens_BL = torch.zeros(len(windows), length, dtype=torch.int64)
    targets_BL = torch.full((len(windows), length), IGNORED)
    for row, window in enumerate(windows):
        size = len(window.inputs)
        tokens_BL[row, :size] = torch.tensor(window.inputs)
        targets_BL[row, window.skip : size] = torch.tensor(window.targets[window.skip :])
    return {"tokens_BL": tokens_BL.to(device), "targets_BL": targets_BL.to(device)}

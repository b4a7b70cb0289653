"""How well the windowed order mixes, beside a full permutation of the same samples.

A window shuffle is weaker than a full one where neighbours in the written order are alike (a folder of one
class, one author's texts): samples of one frame come close together. The measure is how many frames a batch
draws from. If all samples of a frame were copies of each other, a batch of B samples with n_f from frame f
would be worth B^2 / sum(n_f^2) independent ones (Kish's effective sample size, 1965): the worst case. With
samples in no particular order every batch is worth its size whatever the window.

Packed documents (pack.py) are measured by their tokens: a row holds some documents of one lane, or a part of
one, and each weighs as much as it has tokens in the batch. Sum of weights squared over sum of squared weights
takes the place of B^2 / sum(n_f^2), so B rows out of long documents are worth B at most.

Needs no key: sizes and counts are public.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsc.loader.order import DEFAULT_WINDOW_BYTES, Int64s, Order, PlannedWindow, choose_order, mean_sizes
from rsc.store.dataset import Dataset
from rsc.store.format.manifest import ManifestReader
from rsc.store.format.schema import Schema
from rsc.store.splits import open_manifest

_WINDOWS_MEASURED = 24


@dataclass(frozen=True)
class Packing:
    """Rows of `sequence_length` tokens, as if all documents had `document_tokens`, with their separator."""

    sequence_length: int
    document_tokens: float


@dataclass(frozen=True)
class ShuffleQuality:
    """Means over batches of `batch_samples` (rows where `packing` is given); `*_full` is what a full
    permutation would give."""

    batch_samples: int
    packing: Packing | None
    lanes: int
    num_frames: int
    frames_in_batch: float
    frames_in_batch_full: float
    worst_case_batch: float
    worst_case_batch_full: float

    def explain(self) -> str:
        """One sentence with the figures."""
        batch, unit = str(self.batch_samples), "samples"
        if self.packing is not None:
            batch, unit = f"{batch} rows of {self.packing.sequence_length:,} tokens", "documents"
        return (
            f"a batch of {batch} draws from {self.frames_in_batch:.0f} of {self.num_frames} "
            f"frames (full permutation: {self.frames_in_batch_full:.0f}); if neighbours are alike it is "
            f"worth {self.worst_case_batch:.0f} independent {unit} (full: {self.worst_case_batch_full:.0f})"
        )


@dataclass(frozen=True)
class _Part:
    """Positions of the first epoch that a batch draws from, and how much each weighs in it."""

    start: int
    weights: NDArray[np.float64]


def measure_shuffle(
    manifest: ManifestReader,
    *,
    schema: Schema,
    batch_samples: int = 256,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    lanes: int | None = None,
    seed: int = 0,
    sequence_length: int | None = None,
) -> ShuffleQuality:
    """Quality of the order that a Loader with these settings has, for a global batch of `batch_samples`; with
    a `sequence_length`, a PackedLoader, for so many rows. The schema must have one variable field then.

    Computes some windows across one epoch, as if all frames had the same number of samples.
    """
    totals = manifest.totals
    is_ragged = any(field.is_ragged for field in schema.fields)
    sizes = mean_sizes(
        num_samples=totals.num_samples,
        num_shards=totals.num_shards,
        num_frames=totals.num_frames,
        size_bytes=totals.size_bytes,
    )
    if not is_ragged:
        sizes["section_samples"] = manifest.record(0).num_samples
    order = choose_order(
        num_samples=totals.num_samples,
        num_frames=totals.num_frames,
        is_ragged=is_ragged,
        seed=seed,
        window_bytes=window_bytes,
        lanes=lanes,
        **sizes,
    )
    packing = None
    if sequence_length is not None:
        document_tokens = _document_tokens(schema, sample_bytes=totals.size_bytes / totals.num_samples)
        packing = Packing(sequence_length, document_tokens)
    return measure_order(
        order, frame_samples=sizes["frame_samples"], batch_samples=batch_samples, packing=packing
    )


def measure_split(
    dataset: Dataset, split: str, *, batch_samples: int = 256, sequence_length: int | None = None
) -> ShuffleQuality:
    """`measure_shuffle` of a split of a data set version, with the default window."""
    manifest = open_manifest(dataset.place(split), totals=dataset.totals(split))
    try:
        return measure_shuffle(
            manifest,
            schema=dataset.splits[split].schema,
            batch_samples=batch_samples,
            sequence_length=sequence_length,
        )
    finally:
        manifest.close()


def can_be_packed(schema: Schema) -> bool:
    """Whether the mean length of its documents is public: one variable field."""
    return sum(field.is_ragged for field in schema.fields) == 1


def measure_order(
    order: Order, *, frame_samples: int, batch_samples: int, packing: Packing | None = None
) -> ShuffleQuality:
    """Quality of an order over frames of `frame_samples` samples."""
    num_frames = -(-order.num_samples // frame_samples)
    share = (frame_samples - 1) / max(order.num_samples - 1, 1)  # of other samples in a sample's frame
    measured: list[tuple[float, float, float, float]] = []
    for at in np.linspace(0, 1, _WINDOWS_MEASURED).tolist():
        part = _part(order, at=at, batch_samples=batch_samples, packing=packing)
        weights = part.weights
        numbers = _written_numbers(order, start=part.start, count=len(weights), frame_samples=frame_samples)
        per_frame = np.bincount(numbers // frame_samples, weights=weights)
        total, own = float(weights.sum()), float((weights**2).sum())
        drawn = int(np.count_nonzero(weights))
        measured.append(
            (
                float(np.count_nonzero(per_frame)),
                num_frames * (1 - (1 - 1 / num_frames) ** drawn),
                total**2 / float((per_frame**2).sum()),
                total**2 / (own + (total**2 - own) * share),
            )
        )
    frames, frames_full, worth, worth_full = np.mean(measured, axis=0).tolist()
    return ShuffleQuality(
        batch_samples=batch_samples if packing is not None else min(batch_samples, order.num_samples),
        packing=packing,
        lanes=order.lanes,
        num_frames=num_frames,
        frames_in_batch=frames,
        frames_in_batch_full=frames_full,
        worst_case_batch=worth,
        worst_case_batch_full=worth_full,
    )


def _part(order: Order, *, at: float, batch_samples: int, packing: Packing | None) -> _Part:
    """What a batch draws from, `at` (0 to 1) of the way through an epoch."""
    if packing is None:
        count = min(batch_samples, order.num_samples)
        return _Part(int((order.num_samples - count) * at), np.ones(count))
    lanes, documents_per_row = order.lanes, packing.sequence_length / packing.document_tokens
    last_row = int(order.num_samples / documents_per_row) - batch_samples
    rows = np.arange(batch_samples) + int(max(last_row, 0) * at)
    begins = rows // lanes * documents_per_row
    first = int(begins[0])
    weights = np.zeros((math.ceil(begins[-1] + documents_per_row) - first, lanes))
    for row, begin in zip(rows.tolist(), (begins - first).tolist(), strict=True):
        end = begin + documents_per_row
        documents = np.arange(int(begin), math.ceil(end))
        weights[documents, row % lanes] += np.minimum(documents + 1, end) - np.maximum(documents, begin)
    return _Part(first * lanes, weights.reshape(-1)[: order.num_samples - first * lanes])


def _document_tokens(schema: Schema, *, sample_bytes: float) -> float:
    """Mean tokens of a document and its separator, from the stored bytes of a sample."""
    (packed,) = (field for field in schema.fields if field.is_ragged)
    fixed_bytes = sum(field.row_bytes for field in schema.fields)
    return max(sample_bytes - fixed_bytes, 0.0) / packed.storage.itemsize + 1


def _written_numbers(order: Order, *, start: int, count: int, frame_samples: int) -> Int64s:
    """Written numbers of the samples at positions [start, start + count) of the first epoch."""
    found: list[Int64s] = []
    position = start
    while position < start + count:
        window = order.window_at(position)
        numbers = _window_numbers(order, window, frame_samples=frame_samples)
        stop = min(start + count, window.stop)
        found.append(numbers[position - window.start : stop - window.start])
        position = stop
    return np.concatenate(found)


def _window_numbers(order: Order, window: PlannedWindow, *, frame_samples: int) -> Int64s:
    """Written numbers by position of one window."""
    numbers = np.empty(window.stop - window.start, np.int64)
    lanes = np.arange(order.lanes)
    for lane, positions in zip(lanes.tolist(), order.positions(window, lanes=lanes), strict=True):
        read = _reading_order(order, window, lane=lane, frame_samples=frame_samples)
        numbers[positions - window.start] = read[window.first : window.first + len(positions)]
    return numbers


def _reading_order(order: Order, window: PlannedWindow, *, lane: int, frame_samples: int) -> Int64s:
    """Written numbers in the order in which a lane reads its section; frames that are cut come last."""
    pieces: list[tuple[int, int]] = []
    for run in order.section(window.epoch, round_=window.round, lane=lane):
        cuts = [*range(run.start - run.start % frame_samples + frame_samples, run.stop, frame_samples)]
        pieces += zip([run.start, *cuts], [*cuts, run.stop], strict=True)
    shuffled = order.frame_order(len(pieces), epoch=window.epoch, round_=window.round, lane=lane)
    chosen = sorted((pieces[k] for k in shuffled), key=lambda piece: piece[1] - piece[0] < frame_samples)
    return np.concatenate([np.arange(start, stop) for start, stop in chosen])

"""How well the windowed order mixes, beside a full permutation of the same samples.

A window shuffle is weaker than a full one where neighbours in the written order are alike (a folder of one
class, one author's texts): samples of one frame come close together. The measure is how many frames a batch
draws from. If all samples of a frame were copies of each other, a batch of B samples with n_f from frame f
would be worth B^2 / sum(n_f^2) independent ones (Kish's effective sample size, 1965): the worst case. With
samples in no particular order every batch is worth its size whatever the window.

Needs no key: sizes and counts are public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsc.loader.order import DEFAULT_WINDOW_BYTES, Int64s, Order, Window, choose_order
from rsc.store.dataset import Dataset
from rsc.store.manifest import ManifestReader
from rsc.store.schema import Schema
from rsc.store.splits import open_manifest

_WINDOWS_MEASURED = 24


@dataclass(frozen=True)
class ShuffleQuality:
    """Means over batches of `batch_samples`; `*_full` is what a full permutation would give."""

    batch_samples: int
    num_frames: int
    frames_in_batch: float
    frames_in_batch_full: float
    worst_case_batch: float
    worst_case_batch_full: float

    def explain(self) -> str:
        """One sentence with the figures."""
        return (
            f"a batch of {self.batch_samples} draws from {self.frames_in_batch:.0f} of {self.num_frames} "
            f"frames (full permutation: {self.frames_in_batch_full:.0f}); if neighbours are alike it is "
            f"worth {self.worst_case_batch:.0f} independent samples (full: {self.worst_case_batch_full:.0f})"
        )


def measure_shuffle(
    manifest: ManifestReader,
    *,
    schema: Schema,
    batch_samples: int = 256,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    lanes: int | None = None,
    seed: int = 0,
) -> ShuffleQuality:
    """Quality of the order that a Loader with these settings has, for a global batch of `batch_samples`.

    Computes some windows across one epoch, as if all frames had the same number of samples.
    """
    totals = manifest.totals
    frame_samples = max(round(totals.num_samples / totals.num_frames), 1)
    order = choose_order(
        num_samples=totals.num_samples,
        num_frames=totals.num_frames,
        section_samples=manifest.record(0).num_samples,
        frame_samples=frame_samples,
        frame_bytes=totals.size_bytes // totals.num_frames,
        is_ragged=any(field.is_ragged for field in schema.fields),
        seed=seed,
        window_bytes=window_bytes,
        lanes=lanes,
    )
    return measure_order(order, frame_samples=frame_samples, batch_samples=batch_samples)


def measure_split(dataset: Dataset, split: str, *, batch_samples: int = 256) -> ShuffleQuality:
    """`measure_shuffle` of a split of a data set version, with the default window."""
    manifest = open_manifest(dataset.place(split), totals=dataset.totals(split))
    try:
        return measure_shuffle(manifest, schema=dataset.splits[split].schema, batch_samples=batch_samples)
    finally:
        manifest.close()


def measure_order(order: Order, *, frame_samples: int, batch_samples: int) -> ShuffleQuality:
    """Quality of an order over frames of `frame_samples` samples."""
    batch_samples = min(batch_samples, order.num_samples)
    frames: list[float] = []
    worth: list[float] = []
    for start in (
        np.linspace(0, order.num_samples - batch_samples, _WINDOWS_MEASURED).astype(np.int64).tolist()
    ):
        numbers = _written_numbers(order, start=start, count=batch_samples, frame_samples=frame_samples)
        per_frame = np.unique(numbers // frame_samples, return_counts=True)[1]
        frames.append(len(per_frame))
        worth.append(batch_samples**2 / float((per_frame**2).sum()))
    num_frames = -(-order.num_samples // frame_samples)
    pairs = batch_samples * (batch_samples - 1) * (frame_samples - 1) / max(order.num_samples - 1, 1)
    return ShuffleQuality(
        batch_samples=batch_samples,
        num_frames=num_frames,
        frames_in_batch=float(np.mean(frames)),
        frames_in_batch_full=num_frames * (1 - (1 - 1 / num_frames) ** batch_samples),
        worst_case_batch=float(np.mean(worth)),
        worst_case_batch_full=batch_samples**2 / (batch_samples + pairs),
    )


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


def _window_numbers(order: Order, window: Window, *, frame_samples: int) -> Int64s:
    """Written numbers by position of one window."""
    numbers = np.empty(window.stop - window.start, np.int64)
    lanes = np.arange(order.lanes)
    for lane, positions in zip(lanes.tolist(), order.positions(window, lanes=lanes), strict=True):
        read = _reading_order(order, window, lane=lane, frame_samples=frame_samples)
        numbers[positions - window.start] = read[window.first : window.first + len(positions)]
    return numbers


def _reading_order(order: Order, window: Window, *, lane: int, frame_samples: int) -> Int64s:
    """Written numbers in the order in which a lane reads its section; frames that are cut come last."""
    pieces: list[tuple[int, int]] = []
    for run in order.section(window.epoch, round_=window.round, lane=lane):
        cuts = [*range(run.start - run.start % frame_samples + frame_samples, run.stop, frame_samples)]
        pieces += zip([run.start, *cuts], [*cuts, run.stop], strict=True)
    shuffled = order.frame_order(len(pieces), epoch=window.epoch, round_=window.round, lane=lane)
    chosen = sorted((pieces[k] for k in shuffled), key=lambda piece: piece[1] - piece[0] < frame_samples)
    return np.concatenate([np.arange(start, stop) for start, stop in chosen])

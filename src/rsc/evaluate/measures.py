"""Measures with 95 % intervals, from plain arrays. No torch here.

Shares (accuracy, false-positive rate) take Wilson's interval; ratios of sums (bits per byte, loss) the
delta method over independent units (documents, windows); what has no closed form (macro-F1, word
error rate) a seeded bootstrap over samples. Shapes: N samples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rsc.errors import ConfigError

Array = npt.NDArray[Any]
Z95 = 1.959964  # 97.5 % quantile of the normal distribution
BOOTSTRAPS = 1000  # resamples: the interval's ends then wobble by about 2 % of its width


@dataclass(frozen=True)
class Measure:
    """A figure and the interval that holds it in 95 of 100 repetitions; `count` units stand behind it."""

    value: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def share(num_hits: int, *, count: int) -> Measure:
    """Hits of `count` with Wilson's score interval (Wilson 1927); of nothing: nan, anything is possible."""
    if count == 0:
        return Measure(math.nan, 0.0, 1.0, 0)
    p, z2 = num_hits / count, Z95**2
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return Measure(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), count)


def ratio(amounts_N: Array, *, sizes_N: Array) -> Measure:
    """sum(amounts) / sum(sizes) over independent units; the interval is the delta method's."""
    amounts, sizes = np.asarray(amounts_N, float), np.asarray(sizes_N, float)
    if not sizes.sum():
        raise ConfigError("nothing to measure: the split holds no scored item")
    value = float(amounts.sum() / sizes.sum())
    n = len(amounts)
    if n < 2:
        return Measure(value, math.nan, math.nan, n)
    error = math.sqrt(n / (n - 1) * float(((amounts - value * sizes) ** 2).sum())) / float(sizes.sum())
    return Measure(value, value - Z95 * error, value + Z95 * error, n)


def bootstrap(statistic: Callable[[Array], float], *, count: int, seed: int = 0) -> Measure:
    """`statistic(rows)` on all rows, and the 2.5 and 97.5 percentiles over resampled rows."""
    generator = np.random.default_rng(seed)
    draws = [statistic(generator.integers(0, count, count)) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Measure(statistic(np.arange(count)), float(low), float(high), count)


def confusion(labels_N: Array, *, guesses_N: Array, num_classes: int) -> Array:
    """Counts [K, K]: row the true class, column the guess."""
    flat = np.asarray(labels_N) * num_classes + np.asarray(guesses_N)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def f1_scores(confusion_KK: Array) -> Array:
    """F1 of each class [K]; a class that neither occurs nor is guessed gives nan and counts in no mean."""
    hits = np.diag(confusion_KK).astype(float)
    claimed = confusion_KK.sum(0) + confusion_KK.sum(1)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / claimed)


def macro_f1(labels_N: Array, *, guesses_N: Array, num_classes: int, seed: int = 0) -> Measure:
    """Mean of the classes' F1, each class weighing the same."""

    def statistic(rows: Array) -> float:
        table = confusion(labels_N[rows], guesses_N=guesses_N[rows], num_classes=num_classes)
        return float(np.nanmean(f1_scores(table)))

    return bootstrap(statistic, count=len(labels_N), seed=seed)


def edits(reference: Sequence[Any], hypothesis: Sequence[Any]) -> int:
    """Smallest number of substitutions, deletions and insertions (Levenshtein 1966)."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, start=1):
            substituted = diagonal + (wanted != heard)
            diagonal, row[j] = row[j], min(substituted, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def word_error_rate(references: Sequence[str], *, hypotheses: Sequence[str]) -> Measure:
    """Edits over reference words, both summed over utterances."""
    pairs = [(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    return ratio(
        np.array([edits(*pair) for pair in pairs]),
        sizes_N=np.array([len(reference) for reference, _ in pairs]),
    )


@dataclass(frozen=True)
class Calibration:
    """Does "80 % sure" mean right 8 times of 10? Bins are of equal width in confidence."""

    error: float
    """Expected calibration error: mean |confidence - accuracy| weighted by bin (Guo et al. 2017)."""
    brier: float
    """Mean squared distance of the probabilities to the truth; 0 is best."""
    bins: tuple[tuple[float, float, int], ...]
    """(mean confidence, accuracy, count) of each bin that is not empty."""


def calibration(probabilities_NK: Array, *, labels_N: Array, num_bins: int = 15) -> Calibration:
    confidence = probabilities_NK.max(1)
    right = probabilities_NK.argmax(1) == labels_N
    which = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    bins = tuple(
        (float(confidence[which == b].mean()), float(right[which == b].mean()), int((which == b).sum()))
        for b in range(num_bins)
        if (which == b).any()
    )
    error = sum(abs(sure - hit) * n for sure, hit, n in bins) / len(labels_N)
    truth = np.eye(probabilities_NK.shape[1])[labels_N]
    brier = float(((probabilities_NK - truth) ** 2).sum(1).mean())
    return Calibration(error=float(error), brier=brier, bins=bins)


@dataclass(frozen=True)
class Slice:
    """How the model treats one group of samples, one class being "positive"."""

    group: str
    count: int
    false_positive_rate: Measure
    """Share of the group's negatives that are called positive."""
    false_negative_rate: Measure
    """Share of the group's positives that are missed."""


def fold_small_groups(groups: dict[str, Array], *, least: int) -> dict[str, Array]:
    """Groups of `least` samples and more; the others as one, with the smallest of these where that is small
    too. Nothing is left where all samples in groups are fewer."""
    by_size = sorted(groups, key=lambda name: int(groups[name].sum()))
    folded: list[str] = []
    other = np.zeros(0, bool)
    for name in by_size:
        if int(groups[name].sum()) >= least and (not folded or int(other.sum()) >= least):
            break
        folded.append(name)
        other = np.logical_or.reduce([groups[each] for each in folded])
    kept = {name: mask for name, mask in groups.items() if name not in folded}
    if folded and int(other.sum()) >= least:
        kept[f"other ({len(folded)} groups)"] = other
    return kept


def slices(
    groups: dict[str, Array], *, labels_N: Array, guesses_N: Array, positive: Sequence[int]
) -> list[Slice]:
    """One row for `all` and one for each group (a bool mask [N]); classes in `positive` count as one."""
    is_positive, called = np.isin(labels_N, positive), np.isin(guesses_N, positive)
    everything = {"all": np.ones(len(labels_N), bool)}
    return [
        Slice(
            group=name,
            count=int(mask.sum()),
            false_positive_rate=_rate(called, of=mask & ~is_positive),
            false_negative_rate=_rate(~called, of=mask & is_positive),
        )
        for name, mask in (everything | groups).items()
    ]


def _rate(happened_N: Array, *, of: Array) -> Measure:
    return share(int((happened_N & of).sum()), count=int(of.sum()))

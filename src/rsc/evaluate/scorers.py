"""What is measured of a model's answers about whole samples, a scorer for each kind of task.

A scorer is fed batch by batch and keeps plain arrays. Shapes: B batch, N samples, K classes, L positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from rsc.errors import ConfigError, DataError
from rsc.evaluate.measures import (
    Array,
    Calibration,
    Measure,
    Slice,
    calibration,
    confusion,
    f1_scores,
    fold_small_groups,
    macro_f1,
    ratio,
    share,
    slices,
    word_error_rate,
)
from rsc.layers import nearest
from rsc.models.heads import Want
from rsc.recipes.sections import EvalConfig

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class SampleReport:
    """What was measured; empty where a measure does not apply to the head."""

    measures: dict[str, Measure]
    count: int
    per_class: dict[str, float] = field(default_factory=dict)
    """F1 of each label."""
    confusion: list[list[int]] = field(default_factory=list)
    """Row: the true class, column: the answer, in order of the labels."""
    calibration: Calibration | None = None
    slices: list[Slice] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)
    """Samples that could not be used, by the words of train/batches/collate.py."""


class Said(NamedTuple):
    """What a model says of one sample."""

    answer: str
    confidence: float | None
    """Probability of the answer; None where a model gives none."""
    probabilities: dict[str, float]


class Scorer(ABC):
    """Collects answers of one model, and measures them in the end."""

    want = Want.LOGITS
    """What the model is asked for."""
    draws_tokens = False
    """Whether the batch hides tokens by seeds of its own."""
    sorts_by_length = True
    """Whether samples may be batched in another order than they are written."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    @abstractmethod
    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        """One batch: what the model said, the truth in it, and masks [B] of declared groups."""

    @abstractmethod
    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        """Raises DataError where no sample could be used."""


class LabelScorer(Scorer):
    """Of a task whose answers are words of its labels, which `rsc predict` says of one sample."""

    @abstractmethod
    def read(self, outputs: Batch) -> Said:
        """The answer to a batch of one sample."""


class ClassScorer(LabelScorer):
    """One of several classes."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._scores: list[Array] = []
        self._truth: list[Array] = []
        self._groups: list[Mapping[str, Array]] = []

    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        truth_B = batch["label_B"]
        used = (truth_B >= 0).numpy()
        self._scores.append(outputs["logits"].float().cpu().numpy()[used])
        self._truth.append(truth_B.numpy()[used])
        self._groups.append({name: mask[used] for name, mask in groups.items()})

    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        logits_NK, labels_N = joined(self._scores), joined(self._truth)
        guesses_N, num_classes = logits_NK.argmax(1), len(self.labels)
        shifted_NK = logits_NK - logits_NK.max(1, keepdims=True)
        log_p_NK = shifted_NK - np.log(np.exp(shifted_NK).sum(1, keepdims=True))
        table_KK = confusion(labels_N, guesses_N=guesses_N, num_classes=num_classes)
        positive = _positive(self.labels, wanted=config.positive)
        groups = fold_small_groups(self._all_groups(), least=config.min_group)
        return SampleReport(
            measures={
                "accuracy": share(int((guesses_N == labels_N).sum()), count=len(labels_N)),
                "macro_f1": macro_f1(labels_N, guesses_N=guesses_N, num_classes=num_classes),
                "loss": ratio(-log_p_NK[np.arange(len(labels_N)), labels_N], sizes_N=np.ones(len(labels_N))),
            },
            count=len(labels_N),
            per_class=dict(zip(self.labels, f1_scores(table_KK).tolist(), strict=True)),
            confusion=table_KK.tolist(),
            calibration=calibration(np.exp(log_p_NK), labels_N=labels_N),
            slices=slices(groups, labels_N=labels_N, guesses_N=guesses_N, positive=positive),
            bad=dict(+bad),
        )

    def read(self, outputs: Batch) -> Said:
        shares = outputs["logits"].float().cpu()[0].softmax(-1).tolist()
        probabilities = dict(zip(self.labels, shares, strict=True))
        best = max(probabilities, key=probabilities.__getitem__)
        return Said(best, probabilities[best], probabilities)

    def _all_groups(self) -> dict[str, Array]:
        """Masks over all samples; a group that a batch does not name is empty there."""
        names = dict.fromkeys(name for groups in self._groups for name in groups)
        sizes = [len(truth) for truth in self._truth]
        return {
            name: np.concatenate(
                [groups.get(name, np.zeros(n, bool)) for groups, n in zip(self._groups, sizes, strict=True)]
            )
            for name in names
        }


class MultiLabelScorer(LabelScorer):
    """Any of several labels: each one is a question of its own."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._scores: list[Array] = []
        self._truth: list[Array] = []

    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        labels_BK = batch["labels_BK"]
        used = (labels_BK[:, 0] >= 0).numpy()
        self._scores.append(outputs["logits"].float().cpu().sigmoid().numpy()[used])
        self._truth.append(labels_BK.numpy()[used])

    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        said_NK, labels_NK = joined(self._scores) > 0.5, joined(self._truth)
        per_class = {}
        for k, name in enumerate(self.labels):
            table = confusion(labels_NK[:, k], guesses_N=said_NK[:, k].astype(int), num_classes=2)
            per_class[name] = float(f1_scores(table)[1])
        exact = share(int((said_NK == labels_NK).all(1).sum()), count=len(labels_NK))
        right = share(int((said_NK == labels_NK).sum()), count=labels_NK.size)
        measures = {"exact_match": exact, "label_accuracy": right}
        return SampleReport(measures=measures, count=len(labels_NK), per_class=per_class, bad=dict(+bad))

    def read(self, outputs: Batch) -> Said:
        shares = outputs["logits"].float().cpu()[0].sigmoid().tolist()
        probabilities = dict(zip(self.labels, shares, strict=True))
        return Said(", ".join(name for name, p in probabilities.items() if p > 0.5), None, probabilities)


class CtcScorer(LabelScorer):
    """Sequences of labels."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._texts: list[tuple[str, str]] = []

    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        heard = self._heard(outputs)
        for row, count in enumerate(batch["symbol_count_B"].tolist()):
            if count >= 0:
                wanted = [self.labels[i - 1] for i in batch["symbols_BU"][row, :count].tolist()]
                self._texts.append((" ".join(wanted), heard[row]))

    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        if not self._texts:
            raise _nothing_used()
        references, hypotheses = zip(*self._texts, strict=True)
        exact = share(sum(r == h for r, h in self._texts), count=len(self._texts))
        rate = word_error_rate(references, hypotheses=hypotheses)
        measures = {"word_error_rate": rate, "exact_match": exact}
        return SampleReport(measures=measures, count=len(self._texts), bad=dict(+bad))

    def read(self, outputs: Batch) -> Said:
        return Said(self._heard(outputs)[0], None, {})

    def _heard(self, outputs: Batch) -> list[str]:
        return read_symbols(
            outputs["logits"].float().cpu(), lengths=outputs["lengths"].cpu(), labels=self.labels
        )


class PairScorer(Scorer):
    """How often the right partner among those of one batch is the most similar. Partners are those of a
    batch, so the written order stays."""

    sorts_by_length = False

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._hits = self._count = 0

    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        best_B = outputs["logits"].argmax(1).cpu()
        self._hits += int((best_B == torch.arange(len(best_B))).sum())
        self._count += len(best_B)

    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        accuracy = share(self._hits, count=self._count)
        return SampleReport(measures={"accuracy": accuracy}, count=self._count, bad=dict(+bad))


class HiddenTokenScorer(Scorer):
    """Loss in nats per hidden token; which tokens are hidden is drawn from a seed of its own."""

    want = Want.ITEM_LOSSES
    draws_tokens = True
    sorts_by_length = False

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self._nats: list[Array] = []
        self._counts: list[Array] = []

    def add(self, outputs: Batch, batch: Batch, *, groups: Mapping[str, Array]) -> None:
        self._nats.append(outputs["losses"].sum(1).cpu().numpy())
        self._counts.append((batch["targets_BL"] >= 0).sum(1).numpy())

    def report(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        if not self._counts:
            raise DataError("nothing to evaluate: the split holds no sample")
        loss = ratio(np.concatenate(self._nats), sizes_N=np.concatenate(self._counts))
        return SampleReport(measures={"loss": loss}, count=loss.count, bad=dict(+bad))


LABEL_SCORERS: dict[str, type[LabelScorer]] = {
    "classes": ClassScorer,
    "multi_label": MultiLabelScorer,
    "ctc": CtcScorer,
}
SCORERS: dict[str, type[Scorer]] = {
    **LABEL_SCORERS,
    "masked_token": HiddenTokenScorer,
    "contrastive": PairScorer,
}
"""By the kind of task; language models are measured in bits per byte (language.py)."""


def read_symbols(logits_BLK: torch.Tensor, *, lengths: torch.Tensor, labels: Sequence[str]) -> list[str]:
    """Best path of CTC: the best symbol at each position, repeats joined, blanks (0) left out."""
    texts = []
    for best_L, length in zip(logits_BLK.argmax(-1), lengths.tolist(), strict=True):
        path = best_L[:length].tolist()
        kept = [s for s, before in zip(path, [0, *path], strict=False) if s and s != before]
        texts.append(" ".join(labels[symbol - 1] for symbol in kept))
    return texts


def joined(parts: Sequence[Array]) -> Array:
    """Raises DataError where there is nothing in them."""
    if not sum(map(len, parts)):
        raise _nothing_used()
    return np.concatenate(parts)


def _nothing_used() -> DataError:
    return DataError("nothing to evaluate: no sample of the split could be used")


def _positive(labels: Sequence[str], *, wanted: Sequence[str]) -> list[int]:
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        hint = nearest(unknown[0], labels, what="rsc runs show")
        raise ConfigError(f"eval.positive: {unknown[0]!r} is not one of model.head.labels", hint=hint)
    return [labels.index(name) for name in wanted or labels[:1]]

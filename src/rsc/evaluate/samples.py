"""Measure models that answer about whole samples: classes, several labels, sequences of symbols.

columns of a split -> batches -> model -> answers -> measures with intervals, slices, calibration
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rsc.config import nearest
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
from rsc.loader.ragged import RaggedTensor
from rsc.models.build import Model
from rsc.models.heads import Want
from rsc.recipes.sections import EvalConfig
from rsc.store.format.columns import Columns
from rsc.train.batches.collate import Binder, Column
from rsc.train.batches.frame_batches import batches_of
from rsc.train.batches.sample_seeds import Draws
from rsc.train.batches.streams import stream_seed

MAX_GROUPS = 24  # values of a slice column; one with more is an identifier, not a group


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


@torch.no_grad()
def evaluate_samples(model: Model, *, columns: Iterable[Columns], config: EvalConfig) -> SampleReport:
    """Score every sample that can be used. Raises DataError when there is none."""
    model.eval()
    kind = model.config.head.kind
    if kind == "masked_token":
        return _guesses_of_hidden(model, columns=columns, config=config)
    answers = _Answers(model.config.head.labels)
    bad: Counter[str] = Counter()
    binder, device = Binder(model.config), next(model.parameters()).device
    longest = None if kind == "contrastive" else _longest_field(model)
    for batch in batches_of(columns, batch_size=config.batch_size, by_length_of=longest):
        bound = binder.bind(batch)
        bad += bound.bad
        outputs = model({name: value.to(device) for name, value in bound.batch.items()}, Want.LOGITS)
        answers.add(outputs, bound.batch, groups=groups_of(batch, model=model, config=config))
    if kind == "ctc":
        return answers.spoken(bad)
    if kind == "contrastive":
        return answers.paired(bad)
    return answers.several(bad) if kind == "multi_label" else answers.sorted_out(bad, config=config)


def _longest_field(model: Model) -> str | None:
    """The field whose samples differ in length, if there is one. A contrastive model's partners are those of
    its batch: there the written order stays."""
    text, audio = model.config.text, model.config.audio
    stem = audio if audio is not None else text
    return None if stem is None else stem.field


def _guesses_of_hidden(model: Model, *, columns: Iterable[Columns], config: EvalConfig) -> SampleReport:
    """Loss in nats per hidden token; which tokens are hidden is drawn from a seed of its own."""
    binder, device = Binder(model.config), next(model.parameters()).device
    nats, counts = [np.zeros(0)], [np.zeros(0, int)]
    bad: Counter[str] = Counter()
    draws = Draws(stream_seed(0, "evaluation"))
    for batch in batches_of(columns, batch_size=config.batch_size):
        bound = binder.bind(batch, draws=draws)
        draws = draws.after(len(bound.batch["tokens_BL"]))
        bad += bound.bad
        ready = {name: value.to(device) for name, value in bound.batch.items()}
        nats.append(model(ready, Want.ITEM_LOSSES)["losses"].sum(1).cpu().numpy())
        counts.append((bound.batch["targets_BL"] >= 0).sum(1).numpy())
    if not sum(map(len, counts)):
        raise DataError("nothing to evaluate: the split holds no sample")
    loss = ratio(np.concatenate(nats), sizes_N=np.concatenate(counts))
    return SampleReport(measures={"loss": loss}, count=loss.count, bad=dict(+bad))


class _Answers:
    """What the model said about each sample so far, and what was right."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._scores: list[Array] = []
        self._truth: list[Array] = []
        self._groups: list[dict[str, Array]] = []
        self._texts: list[tuple[str, str]] = []

    def add(
        self, outputs: dict[str, torch.Tensor], batch: dict[str, torch.Tensor], *, groups: dict[str, Array]
    ) -> None:
        scores = outputs["logits"].float().cpu()
        if "symbol_count_B" in batch:
            self._add_spoken(scores, outputs["lengths"].cpu(), batch)
            return
        truth = batch.get("label_B", batch.get("labels_BK", torch.arange(len(scores))))
        flat = truth if truth.ndim == 1 else truth[:, 0]
        used = (flat >= 0).numpy()
        self._scores.append((scores if truth.ndim == 1 else scores.sigmoid()).numpy()[used])
        self._truth.append(truth.numpy()[used])
        self._groups.append({name: mask[used] for name, mask in groups.items()})

    def sorted_out(self, bad: Counter[str], *, config: EvalConfig) -> SampleReport:
        """One of several classes."""
        logits_NK, labels_N = self._joined()
        guesses_N, num_classes = logits_NK.argmax(1), len(self._labels)
        shifted_NK = logits_NK - logits_NK.max(1, keepdims=True)
        log_p_NK = shifted_NK - np.log(np.exp(shifted_NK).sum(1, keepdims=True))
        table_KK = confusion(labels_N, guesses_N=guesses_N, num_classes=num_classes)
        positive = _positive(self._labels, wanted=config.positive)
        groups = fold_small_groups(self._all_groups(), least=config.min_group)
        return SampleReport(
            measures={
                "accuracy": share(int((guesses_N == labels_N).sum()), count=len(labels_N)),
                "macro_f1": macro_f1(labels_N, guesses_N=guesses_N, num_classes=num_classes),
                "loss": ratio(-log_p_NK[np.arange(len(labels_N)), labels_N], sizes_N=np.ones(len(labels_N))),
            },
            count=len(labels_N),
            per_class=dict(zip(self._labels, f1_scores(table_KK).tolist(), strict=True)),
            confusion=table_KK.tolist(),
            calibration=calibration(np.exp(log_p_NK), labels_N=labels_N),
            slices=slices(groups, labels_N=labels_N, guesses_N=guesses_N, positive=positive),
            bad=dict(+bad),
        )

    def several(self, bad: Counter[str]) -> SampleReport:
        """Any of several labels: each one is a question of its own."""
        scores_NK, labels_NK = self._joined()
        said_NK = scores_NK > 0.5
        per_class = {}
        for k, name in enumerate(self._labels):
            table = confusion(labels_NK[:, k], guesses_N=said_NK[:, k].astype(int), num_classes=2)
            per_class[name] = float(f1_scores(table)[1])
        exact = share(int((said_NK == labels_NK).all(1).sum()), count=len(labels_NK))
        right = share(int((said_NK == labels_NK).sum()), count=labels_NK.size)
        measures = {"exact_match": exact, "label_accuracy": right}
        return SampleReport(measures=measures, count=len(labels_NK), per_class=per_class, bad=dict(+bad))

    def spoken(self, bad: Counter[str]) -> SampleReport:
        if not self._texts:
            raise DataError("nothing to evaluate: no sample of the split could be used")
        references, hypotheses = zip(*self._texts, strict=True)
        exact = share(sum(r == h for r, h in self._texts), count=len(self._texts))
        rate = word_error_rate(references, hypotheses=hypotheses)
        measures = {"word_error_rate": rate, "exact_match": exact}
        return SampleReport(measures=measures, count=len(self._texts), bad=dict(+bad))

    def paired(self, bad: Counter[str]) -> SampleReport:
        """How often the right partner among those of one batch is the most similar."""
        hits = sum(int((scores.argmax(1) == np.arange(len(scores))).sum()) for scores in self._scores)
        count = sum(map(len, self._scores))
        return SampleReport(measures={"accuracy": share(hits, count=count)}, count=count, bad=dict(+bad))

    def _add_spoken(
        self, scores: torch.Tensor, lengths: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> None:
        heard = read_symbols(scores, lengths=lengths, labels=self._labels)
        for row, count in enumerate(batch["symbol_count_B"].tolist()):
            if count >= 0:
                wanted = [self._labels[i - 1] for i in batch["symbols_BU"][row, :count].tolist()]
                self._texts.append((" ".join(wanted), heard[row]))

    def _joined(self) -> tuple[Array, Array]:
        if not sum(map(len, self._truth)):
            raise DataError("nothing to evaluate: no sample of the split could be used")
        return np.concatenate(self._scores), np.concatenate(self._truth)

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


def read_symbols(logits_BLK: torch.Tensor, *, lengths: torch.Tensor, labels: Sequence[str]) -> list[str]:
    """Best path of CTC: the best symbol at each position, repeats joined, blanks (0) left out."""
    texts = []
    for best_L, length in zip(logits_BLK.argmax(-1), lengths.tolist(), strict=True):
        path = best_L[:length].tolist()
        kept = [s for s, before in zip(path, [0, *path], strict=False) if s and s != before]
        texts.append(" ".join(labels[symbol - 1] for symbol in kept))
    return texts


def groups_of(batch: dict[str, Column], *, model: Model, config: EvalConfig) -> dict[str, Array]:
    """Which samples belong to which declared group, as masks [B]."""
    groups: dict[str, Array] = {}
    for name in config.slice_columns:
        if name not in batch:
            raise ConfigError(
                f"eval.slice_columns: the data has no field {name!r}",
                hint=nearest(name, batch, what="rsc data show"),
            )
        values = _as_texts(batch[name])
        for value in sorted(set(values))[:MAX_GROUPS]:
            groups[f"{name}={value}"] = np.array([v == value for v in values])
    text = model.config.text
    if config.slice_terms and text is not None:
        texts = _as_texts(batch[text.field])
        for name, words in config.slice_terms.items():
            pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
            groups[name] = np.array([bool(pattern.search(t)) for t in texts])
    return groups


def _positive(labels: Sequence[str], *, wanted: Sequence[str]) -> list[int]:
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        hint = nearest(unknown[0], labels, what="rsc runs show")
        raise ConfigError(f"eval.positive: {unknown[0]!r} is not one of model.head.labels", hint=hint)
    return [labels.index(name) for name in wanted or labels[:1]]


def _as_texts(column: Column) -> list[str]:
    if isinstance(column, RaggedTensor):
        return [data.decode(errors="replace") for data in column.to_bytes()]
    return [str(value) for value in column.tolist()]

"""`rsc plan score`: predictions of published runs beside what was published. No torch here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsc.plan.fit import FittedModel, best_case, kind_of
from rsc.plan.machines import accelerator
from rsc.plan.memory import memory
from rsc.plan.published import OUTCOMES, Cases, Row, bits_of, cases_of, published_s, why_not
from rsc.plan.step_time import step_time

_HALF = 0.5
"""The constant that a planner must beat: this share of the peak, whatever is run."""


@dataclass(frozen=True)
class RowPrediction:
    seconds: float
    low_s: float
    high_s: float
    memory_gib: float
    baseline_s: float
    """What a constant share of the peak says."""


def score(rows: Sequence[Row], calibration: FittedModel) -> dict[str, Any]:
    """The answer of `rsc plan score --json`: groups, rows, and rows that are left out with the reason."""
    reasons = [(row, why_not(row)) for row in rows]
    usable = [row for row, reason in reasons if reason is None]
    predictions = predictions_of(usable, calibration)
    told = [_row(row, prediction) for row, prediction in zip(usable, predictions, strict=True)]
    groups: dict[str, list[tuple[Row, RowPrediction]]] = defaultdict(list)
    for row, prediction in zip(usable, predictions, strict=True):
        groups[str(row.get("group"))].append((row, prediction))
    return {
        "groups": [_group(name, members) for name, members in groups.items()],
        "rows": told,
        "left_out": [{"id": row.get("id"), "reason": reason} for row, reason in reasons if reason],
        "calibration": calibration.provenance,
    }


def predictions_of(rows: Sequence[Row], calibration: FittedModel) -> list[RowPrediction]:
    """From everything but the outcome fields."""
    if not rows:
        return []
    cases = cases_of([{key: value for key, value in row.items() if key not in OUTCOMES} for row in rows])
    seconds = step_time(cases.shape, cases.plan, cases.machine, calibration.factors).total
    held = memory(cases.shape, cases.plan).total / 2**30
    best = best_case(cases, seconds)
    slow = _slow_of_blanks(cases, seconds)
    constant = _constant_s(cases)
    found = []
    for row, at, slower in zip(rows, best, slow, strict=True):
        spread = calibration.spread.get(kind_of(row), max(calibration.spread.values(), default=0.3))
        low, high = seconds[at] * math.exp(-spread), max(seconds[at] * math.exp(spread), slower)
        found.append(
            RowPrediction(float(seconds[at]), float(low), float(high), float(held[at]), float(constant[at]))
        )
    return found


def _slow_of_blanks(cases: Cases, seconds: Any) -> list[float]:
    """Median over the plans that a row's blanks allow."""
    values: dict[int, list[float]] = defaultdict(list)
    for number, value in zip(cases.row, seconds, strict=True):
        values[int(number)].append(float(value))
    return [float(np.median(values[number])) for number in range(len(cases.rows))]


def _constant_s(cases: Cases) -> Any:
    shape, plan = cases.shape, cases.plan
    tokens = np.asarray(plan.batch) * shape.sequence
    again = np.where(np.asarray(plan.recompute) == 2, 4 / 3, 1.0)
    peaks = np.array(
        [accelerator(str(row["accelerator"])).peak(bits_of(row.get("precision"))) for row in cases.rows]
    )
    return tokens * shape.flops_per_token * again / (np.asarray(plan.world) * _HALF * peaks[cases.row])


def _row(row: Row, prediction: RowPrediction) -> dict[str, Any]:
    published = published_s(row)
    told = {
        "id": row.get("id"),
        "group": row.get("group"),
        "predicted_s": prediction.seconds,
        "low_s": prediction.low_s,
        "high_s": prediction.high_s,
        "published_s": published,
        "error": prediction.seconds / published - 1 if published else None,
        "baseline_s": prediction.baseline_s,
        "memory_gib": prediction.memory_gib,
        "published_memory_gib": row.get("peak_mem_gib"),
    }
    if row.get("peak_mem_gib"):
        told["memory_error"] = prediction.memory_gib / row["peak_mem_gib"] - 1
    return told


def _group(name: str, members: list[tuple[Row, RowPrediction]]) -> dict[str, Any]:
    timed = [(row, prediction) for row, prediction in members if published_s(row)]
    answer: dict[str, Any] = {"group": name, "rows": len(members), "timed": len(timed)}
    weighed = [(p.memory_gib, r["peak_mem_gib"]) for r, p in members if r.get("peak_mem_gib")]
    if weighed:
        answer["memory_mape"] = 100 * float(np.mean([abs(mine / real - 1) for mine, real in weighed]))
    if not timed:
        return {
            **answer,
            "mape": None,
            "bias": None,
            "rank": None,
            "regret": None,
            "coverage": None,
            "baseline_mape": None,
        }
    real = np.array([published_s(row) for row, _ in timed])
    mine = np.array([prediction.seconds for _, prediction in timed])
    constant = np.array([prediction.baseline_s for _, prediction in timed])
    inside = [p.low_s <= s <= p.high_s for (_, p), s in zip(timed, real, strict=True)]
    families = _same_model([row for row, _ in timed])
    return {
        **answer,
        "mape": 100 * float(np.abs(mine / real - 1).mean()),
        "bias": 100 * float((mine / real - 1).mean()),
        "rank": _mean([_spearman(mine[at], real[at]) for at in families]),
        "regret": _mean([float(real[at][mine[at].argmin()] / real[at].min() - 1) for at in families]),
        "coverage": float(np.mean(inside)),
        "baseline_mape": 100 * float(np.abs(constant / real - 1).mean()),
        "baseline_rank": _mean([_spearman(constant[at], real[at]) for at in families]),
        "baseline_regret": _mean(
            [float(real[at][constant[at].argmin()] / real[at].min() - 1) for at in families]
        ),
    }


def _same_model(rows: Sequence[Row]) -> list[Any]:
    """Numbers of rows that differ in their layout alone; at least two."""
    keys = (
        "layers",
        "hidden",
        "ffn",
        "seq",
        "global_batch",
        "n_accel",
        "accelerator",
        "precision",
        "experts",
    )
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        found[tuple(row.get(key) for key in keys)].append(number)
    return [np.array(members) for members in found.values() if len(members) > 1]


def _spearman(mine: Any, real: Any) -> float:
    ranks = [_ranks(values) for values in (mine, real)]
    if any(rank.std() == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Any) -> Any:
    """Equal values share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return (ends - (counts - 1) / 2)[inverse]


def _mean(values: Sequence[float], keep: Callable[[float], bool] = math.isfinite) -> float | None:
    kept = [value for value in values if keep(value)]
    return float(np.mean(kept)) if kept else None

"""Fit `Factors` to published rows: one set for all models, machines and layouts.

Least squares of log(predicted / published) by Levanberg-Marquardt on the logarithms of the factors, each held
near its first value as by a prior. A group counts as the square root of its rows, so that one sweep of 1,440
rows does not outweigh all others. numpy has no optimiser; a numerical Jacobian of 24 columns is enough.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import numpy as np

from rsc.errors import ConfigError
from rsc.plan.published import Cases, Row, cases_of, published_s, stack_date, why_not
from rsc.plan.step_time import Factors, step_time

_NAMES = [field.name for field in fields(Factors)]
_PRIOR = 0.5
"""Standard deviation of a factor's logarithm around its first value."""
_SHARES = {"matmul", "narrow", "attention", "up", "out", "tensor_shown", "expert_shown", "pipe_shown"}
_SHARES |= {"dp_hidden", "shard_hidden", "shard_shown"}
_NOISE = 0.10
"""Standard deviation that is expected of a row's logarithm."""
_LARGEST = 3.0
"""Residuals beyond so many deviations weigh less: a row that was printed wrongly moves nothing."""


@dataclass(frozen=True)
class FittedModel:
    factors: Factors
    spread: dict[str, float]
    """Half width of the 80 % interval in log(seconds), by kind of row; from groups left out."""
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"factors": self.factors.to_json(), "spread": self.spread, "provenance": self.provenance}


def load_calibration() -> FittedModel:
    """What is shipped."""
    found = json.loads(files("rsc.plan").joinpath("tables/calibration.json").read_text())
    return FittedModel(Factors(**found["factors"]), found["spread"], found["provenance"])


def best_case(cases: Cases, seconds: Any) -> Any:
    """Of each row, the number of its fastest plan."""
    order = np.lexsort((seconds, cases.row))
    _, first = np.unique(cases.row[order], return_index=True)
    return order[first]


def fit(rows: Sequence[Row], *, start: Factors | None = None, rounds: int = 12) -> Factors:
    """Rows without a published time are left out."""
    usable = [row for row in rows if published_s(row) and why_not(row) is None]
    cases = cases_of(usable)
    published = _log_published(usable)
    sizes = Counter(row.get("group") for row in usable)
    weight = np.array([sizes[row.get("group")] ** -0.25 for row in usable]) / _NOISE
    first = np.log([getattr(Factors(), name) for name in _NAMES])
    point = first if start is None else np.log([getattr(start, name) for name in _NAMES])
    damping = 1.0
    for _ in range(rounds):
        own = cases.take(best_case(cases, _seconds(cases, point)))

        def residuals(at: Any, own: Cases = own) -> Any:
            misses = (np.log(_seconds(own, at)) - published) * weight
            return np.concatenate([_softened(misses), (at - first) / _PRIOR])

        now = residuals(point)
        jacobian = np.stack(
            [(residuals(point + step) - now) / 1e-4 for step in 1e-4 * np.eye(len(point))], axis=1
        )
        square = jacobian.T @ jacobian
        for _ in range(6):
            step = np.linalg.solve(square + damping * np.diag(np.diag(square)), -jacobian.T @ now)
            after = _bounded(point + np.clip(step, -0.5, 0.5))
            if (residuals(after) ** 2).sum() < (now**2).sum():
                point, damping = after, damping / 4
                break
            damping *= 4
    return _factors(point)


def _softened(misses: Any) -> Any:
    """Square roots of Huber's loss, signed."""
    size = np.abs(misses)
    return np.sign(misses) * np.where(
        size <= _LARGEST, size, np.sqrt(np.maximum(2 * _LARGEST * size - _LARGEST**2, 0))
    )


def _bounded(point: Any) -> Any:
    top = np.array([0.0 if name in _SHARES else np.inf for name in _NAMES])
    return np.minimum(point, top)


def _factors(point: Any) -> Factors:
    return Factors(**{name: float(value) for name, value in zip(_NAMES, np.exp(point), strict=True)})


def _seconds(cases: Cases, point: Any) -> Any:
    return step_time(cases.shape, cases.plan, cases.machine, _factors(point)).total


def calibrate(rows: Sequence[Row]) -> FittedModel:
    """Fit to all rows; the spread and the errors by which to judge come from fits that left a group out."""
    usable = [row for row in rows if published_s(row) and why_not(row) is None]
    if not usable:
        raise ConfigError("no row has a published step time and a layout that can be predicted")
    whole = fit(usable)
    misses: dict[str, list[float]] = {"dense": [], "experts": []}
    left_out = {}
    for group in sorted({str(row.get("group")) for row in usable}):
        held = [row for row in usable if str(row.get("group")) == group]
        rest = [row for row in usable if str(row.get("group")) != group]
        if not rest:
            continue
        log_error = np.log(predict(held, fit(rest, start=whole, rounds=8))) - _log_published(held)
        left_out[group] = round(100 * float(np.abs(np.expm1(log_error)).mean()), 1)
        for kind, chosen in _by_kind(held).items():
            if chosen.any():
                misses[kind].append(float(np.quantile(np.abs(log_error[chosen]), 0.8)))
    spread = {kind: float(np.quantile(found, 0.8)) for kind, found in misses.items() if found}
    text = json.dumps(usable, sort_keys=True).encode()
    groups = Counter(str(row.get("group")) for row in usable)
    provenance = {
        "rows": len(usable),
        "groups": dict(sorted(groups.items())),
        "rows_sha256": hashlib.sha256(text).hexdigest(),
        "stack_date": round(max(map(stack_date, usable)), 2),
        "mape_left_out": left_out,
    }
    return FittedModel(whole, spread, provenance)


def predict(rows: Sequence[Row], factors: Factors) -> Any:
    """Seconds of a step of each row."""
    cases = cases_of(rows)
    seconds = step_time(cases.shape, cases.plan, cases.machine, factors).total
    return seconds[best_case(cases, seconds)]


def _by_kind(rows: Sequence[Row]) -> dict[str, Any]:
    with_experts = np.array([kind_of(row) == "experts" for row in rows])
    return {"dense": ~with_experts, "experts": with_experts}


def kind_of(row: Row) -> str:
    return "experts" if row.get("experts") or row.get("experts_topk") or row.get("arch") == "moe" else "dense"


def _log_published(rows: Sequence[Row]) -> Any:
    return np.log([published_s(row) or np.nan for row in rows])

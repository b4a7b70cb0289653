"""Inverse questions: which cluster meets a deadline and a budget; how large a model trains in a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rsc.errors import ConfigError
from rsc.plan.answer import PlanAnswer, answer
from rsc.plan.fit import FittedModel
from rsc.plan.machines import Cluster
from rsc.plan.question import Question, question
from rsc.plan.search import Limits

_MOST = 65_536
"""Accelerators that are tried: doublings of a node up to this."""


@dataclass(frozen=True)
class Wish:
    days: float | None = None
    budget: float | None = None

    def refuses(self, given: PlanAnswer) -> str | None:
        figures = given.figures
        if self.days is not None and figures["days"] > self.days:
            return f"{figures['days']:.3g} days"
        if self.budget is not None and figures["cost"] > self.budget:
            return f"cost {figures['cost']:,.0f}"
        return None


def smallest_cluster(
    ask: Question,
    cluster_with: Callable[[int], Cluster],
    calibration: FittedModel,
    *,
    wish: Wish,
    limits: Limits,
) -> PlanAnswer:
    """The fewest accelerators that keep to the wish. Raises ConfigError with what the nearest one needs."""
    if wish.budget is not None and cluster_with(8).config.price_per_hour is None:
        raise ConfigError("a budget, but no price", hint="add --price for one accelerator and hour")
    tried: list[tuple[int, PlanAnswer | None]] = []
    count = 8
    while count <= _MOST:
        try:
            given = answer(ask, cluster_with(count), calibration, limits=limits)
        except ConfigError:
            tried.append((count, None))
        else:
            if wish.refuses(given) is None:
                return given
            tried.append((count, given))
        count *= 2
    raise _out_of_reach(tried, wish)


def _out_of_reach(tried: list[tuple[int, PlanAnswer | None]], wish: Wish) -> ConfigError:
    possible = [(count, given) for count, given in tried if given is not None]
    if not possible:
        return ConfigError(f"the model fits on none of 8 to {_MOST} of these accelerators")
    count, given = min(possible, key=lambda each: each[1].figures["days"])
    cost = given.figures["cost"]
    price = "" if cost is None else f", cost {cost:,.0f}"
    needs = f"{given.figures['days']:.3g} days{price}"
    return ConfigError(
        f"no number of accelerators keeps to it; the fastest, {count}, needs {needs}",
        hint="allow more, train fewer tokens, or take other accelerators",
    )


def largest_model(
    cluster: Cluster, calibration: FittedModel, *, days: float, limits: Limits, sequence: int | None = None
) -> PlanAnswer:
    """By bisection over sizes, each with its compute-optimal number of tokens."""
    low, high = 1e7, 1e14
    best: PlanAnswer | None = None
    for _ in range(22):
        size = (low * high) ** 0.5
        try:
            given = answer(
                question(f"{size / 1e9:.4g}B", sequence=sequence), cluster, calibration, limits=limits
            )
        except ConfigError:
            high = size
            continue
        if given.figures["days"] <= days:
            low, best = size, given
        else:
            high = size
        if high / low < 1.03:
            break
    if best is None:
        raise ConfigError(
            f"no model of 10M parameters or more trains on {cluster.size} accelerators in {days:g} days",
            hint="allow more days or accelerators",
        )
    return best

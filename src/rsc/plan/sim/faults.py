"""Every failure that could happen, drawn before the first event: variants of a scenario meet the same ones.

Each node has a Poisson stream at its highest possible rate. A failure carries a mark in [0, 1) and happens
if the mark lies below (rate now / highest rate): thinning (Lewis and Shedler 1979). What is drawn does not
depend on what is scheduled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rsc.errors import ConfigError
from rsc.plan.sim.scenario import Scenario

MOST_FAULTS = 20_000_000

NODE, FALSE_POSITIVE, DOMAIN = 0, 1, 2


class NodeFault(NamedTuple):
    time_s: float
    node: int
    kind: int
    cause: int
    """Index of failures.causes."""
    mark: float
    permanent: float
    detected: float
    delay: float
    """Uniform draws that decide whether it lasts, whether a check sees it, and when."""
    repair: float
    """Standard normal draw of the repair time."""


@dataclass(frozen=True)
class FaultStreams:
    events: list[NodeFault]
    lemons: frozenset[int]
    ceiling: float
    """Highest rate of a good node over its basic rate; a lemon's is lemon_factor times that."""


def draw(scenario: Scenario, *, seed: int) -> FaultStreams:
    """All failures of the horizon in order of time."""
    failures, nodes = scenario.failures, scenario.cluster.nodes
    streams = [np.random.default_rng([seed, 2, number]) for number in range(5)]
    is_lemon = streams[0].random(nodes) < failures.lemon_share
    ceiling = failures.infant_factor * size_factor(scenario, largest_job_nodes(scenario))
    rates = np.where(is_lemon, failures.lemon_factor, 1.0) * ceiling * failures.rate_per_node_day
    false = np.full(nodes, scenario.health.false_positives_per_node_day if scenario.health.checks else 0.0)
    parts = [
        _stream(streams[1], rates, NODE, scenario),
        _stream(streams[2], false, FALSE_POSITIVE, scenario),
        *_domains(streams[3], failures.rack_rate_per_day, scenario.cluster.nodes_per_rack, scenario),
        *_domains(streams[4], failures.pod_rate_per_day, scenario.cluster.nodes_per_pod, scenario),
    ]
    events = sorted((fault for part in parts for fault in part), key=lambda fault: fault[:3])
    return FaultStreams(events, frozenset(np.flatnonzero(is_lemon).tolist()), ceiling)


def size_factor(scenario: Scenario, nodes: int) -> float:
    """How much more often a node of a large job fails."""
    failures = scenario.failures
    if not failures.size_exponent or nodes <= failures.size_from_nodes:
        return 1.0
    return float((nodes / failures.size_from_nodes) ** failures.size_exponent)


def largest_job_nodes(scenario: Scenario) -> int:
    work = scenario.workload
    largest = max((each.gpus for each in work.classes), default=0)
    gpus = scenario.gpus if work.trace else max(largest, work.single_job_gpus)
    return max(1, gpus // scenario.cluster.gpus_per_node)


def _stream(
    random: np.random.Generator, rates: NDArray[np.float64], kind: int, scenario: Scenario
) -> Iterator[NodeFault]:
    """FaultStreams of nodes with these rates per day."""
    expected = rates.sum() * scenario.days
    if expected > MOST_FAULTS:
        raise ConfigError(
            f"{expected:,.0f} failures to draw, more than {MOST_FAULTS:,}",
            hint="check the unit of failures.rate_per_node_day (6.5 per 1000 node-days is 0.0065)",
        )
    counts = random.poisson(rates * scenario.days)
    nodes = np.repeat(np.arange(len(rates)), counts)
    times = random.random(len(nodes)) * scenario.horizon_s
    return _faults(random, times, nodes, kind, scenario)


def _domains(
    random: np.random.Generator, rate: float, size: int, scenario: Scenario
) -> Iterator[Iterator[NodeFault]]:
    """FaultStreams that take every node of a rack or pod at one moment."""
    nodes = scenario.cluster.nodes
    count = -(-nodes // size)
    hits = random.integers(0, count, random.poisson(rate * count * scenario.days))
    times = random.random(len(hits)) * scenario.horizon_s
    every = (hits[:, None] * size + np.arange(size)).ravel()
    inside = every < nodes
    yield _faults(random, np.repeat(times, size)[inside], every[inside], DOMAIN, scenario)


def _faults(
    random: np.random.Generator,
    times: NDArray[np.float64],
    nodes: NDArray[np.int64],
    kind: int,
    scenario: Scenario,
) -> Iterator[NodeFault]:
    edges = np.cumsum([cause.share for cause in scenario.failures.causes])[:-1]
    causes = np.searchsorted(edges, random.random(len(times)), side="right")
    marks = random.random((len(times), 4)).tolist()
    normal = random.standard_normal(len(times)).tolist()
    rows = zip(times.tolist(), nodes.tolist(), causes.tolist(), marks, normal, strict=True)
    for time_s, node, cause, (mark, permanent, detected, delay), repair in rows:
        yield NodeFault(time_s, node, kind, cause, mark, permanent, detected, delay, repair)

"""The answer of `rsc plan run`: layout, memory, time with failures, storage, energy, cost. No torch here.

Failures come at random, on average every M seconds; each costs what was done since the last checkpoint, and a
restart R. A run that saves every `interval` seconds, for `write` seconds, then makes progress in
interval / (M e^(R/M) (e^((interval + write)/M) - 1)) of the time (Daly 2006,
doi:10.1016/j.future.2004.11.016). For rare failures that is the formula of arXiv:2410.21680, whose rates are
the defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rsc.plan.fit import FittedModel
from rsc.plan.machines import Cluster
from rsc.plan.memory import Memory, memory
from rsc.plan.published import machine_facts
from rsc.plan.question import Question
from rsc.plan.refusals import nothing_divides, nothing_fits, pinned_apart
from rsc.plan.search import Limits, NothingDivides, NothingFits, SearchResult, search
from rsc.plan.step_time import StepTime, step_time
from rsc.plan.work import Machine

_CHECKPOINT_BYTES = 12.0
"""A parameter in a checkpoint: float32 weights and two moments."""
_WRITE_S = 60.0
"""How long a checkpoint may hold the run where the store's rate is not known; the store is asked for it."""
_TOKEN_BYTES = 4.0
"""Of a stored token id."""
_DAY = 86_400.0


@dataclass(frozen=True)
class Failures:
    between_s: float
    """Mean time between failures of the whole job; infinite where none are expected."""
    interval_s: float
    """Between checkpoints, at its best."""
    write_s: float
    ettr: float
    """Share of the time that makes progress."""


@dataclass(frozen=True)
class PlanAnswer:
    question: Question
    cluster: Cluster
    machine: Machine
    found: SearchResult
    step: StepTime
    """Of the fastest layout, as are all figures below."""
    memory: Memory
    failures: Failures
    figures: dict[str, Any]
    """By name, for --explain and --json; None where a price or a rate is not known."""
    helps: tuple[tuple[str, float], ...]
    """(what would be better, share of the step that it saves), largest first."""


def answer(ask: Question, cluster: Cluster, calibration: FittedModel, *, limits: Limits) -> PlanAnswer:
    """Raises ConfigError where nothing divides or fits, with the smallest change that does."""
    limits = replace(limits, **ask.pins)
    machine = machine_of(cluster, bits=limits.bits)
    if (apart := pinned_apart(ask, cluster, limits)) is not None:
        raise apart
    try:
        found = search(
            ask.shape, machine, calibration.factors, world=cluster.size, batch=ask.batch, limits=limits
        )
    except NothingDivides:
        raise nothing_divides(ask, cluster, limits) from None
    except NothingFits as error:
        raise nothing_fits(ask, cluster, limits, error) from None
    best = found.plans.take([0])
    step = step_time(ask.shape, best, machine, calibration.factors)
    failing = failures(cluster, parameters=float(ask.shape.parameters))
    kind = "experts" if float(ask.shape.experts) else "dense"
    spread = math.exp(calibration.spread[kind])
    return PlanAnswer(
        question=ask,
        cluster=cluster,
        machine=machine,
        found=found,
        step=step,
        memory=memory(ask.shape, best),
        failures=failing,
        figures=_figures(
            ask, cluster, float(found.seconds[0]), spread=spread, failing=failing, bits=limits.bits
        ),
        helps=_helps(ask, machine, calibration, float(found.seconds[0]), cluster=cluster, limits=limits),
    )


def machine_of(cluster: Cluster, *, bits: int) -> Machine:
    facts = machine_facts(
        cluster.device, bits=bits, world=cluster.size, domain=cluster.domain, scale_out=cluster.scale_out
    )
    if cluster.device.is_host:  # all ranks share it
        shared = ("peak", "matmul", "matmul_narrow", "memory", "memory_rate")
        facts |= {name: facts[name] / cluster.size for name in shared}
    return Machine(**facts)


def failures(cluster: Cluster, *, parameters: float) -> Failures:
    config = cluster.config
    rate = config.failures_per_1000_node_days / 1000 * config.nodes / _DAY
    size = _CHECKPOINT_BYTES * parameters
    write = size / (1e9 * config.storage_rate) if config.storage_rate else _WRITE_S
    if rate == 0:
        return Failures(math.inf, math.inf, write, 1.0)
    between, restart = 1 / rate, 60 * config.restart_minutes
    interval = min(max(math.sqrt(2 * write * between), write), 3600.0 * 24)
    return Failures(
        between, interval, write, ettr(between, interval_s=interval, write_s=write, restart_s=restart)
    )


def ettr(between_s: float, *, interval_s: float, write_s: float, restart_s: float) -> float:
    exponent = (interval_s + write_s) / between_s
    if exponent > 500 or restart_s / between_s > 500:
        return 0.0
    return interval_s / (between_s * math.exp(restart_s / between_s) * math.expm1(exponent))


def _figures(
    ask: Question, cluster: Cluster, step_s: float, *, spread: float, failing: Failures, bits: int
) -> dict[str, Any]:
    config, world = cluster.config, cluster.size
    tokens_a_step = ask.batch * float(ask.shape.sequence)
    steps = math.ceil(ask.tokens / tokens_a_step)
    ideal_days = steps * step_s / _DAY
    days = ideal_days / failing.ettr if failing.ettr else math.inf
    hours = days * 24 * world
    watts = config.power_share * (cluster.device.power_w + config.host_power_w) * config.pue
    energy = hours * watts / 1000
    size = _CHECKPOINT_BYTES * float(ask.shape.parameters)
    flops = float(ask.shape.flops_per_token)
    return {
        "step_s": step_s,
        "low_s": step_s / spread,
        "high_s": step_s * spread,
        "mfu": tokens_a_step * flops / (step_s * world * cluster.device.peak(bits)),
        "tokens_per_s": tokens_a_step / step_s,
        "steps": steps,
        "ideal_days": ideal_days,
        "days": days,
        "low_days": days / spread,
        "high_days": days * spread,
        "ettr": failing.ettr,
        "accelerator_hours": hours,
        "checkpoint_bytes": size,
        "store_write_bytes_per_s": size / failing.write_s,
        "store_read_bytes_per_s": _TOKEN_BYTES * tokens_a_step / step_s,
        "energy_kwh": energy,
        "cost": None if config.price_per_hour is None else hours * config.price_per_hour,
        "carbon_kg": None if config.carbon_kg_per_kwh is None else energy * config.carbon_kg_per_kwh,
    }


_WISHES = {
    "twice the bandwidth between domains": ("scale_out", 2.0),
    "twice the bandwidth inside a domain": ("scale_up", 2.0),
    "twice the memory": ("memory", 2.0),
    "twice the memory bandwidth": ("memory_rate", 2.0),
    "products twice as fast": ("matmul", 2.0),
}


def _helps(
    ask: Question,
    machine: Machine,
    calibration: FittedModel,
    step_s: float,
    *,
    cluster: Cluster,
    limits: Limits,
) -> tuple[tuple[str, float], ...]:
    """Each wish is searched anew: with other links another layout is the best."""
    saved = []
    for wish, (name, times) in _WISHES.items():
        changed: dict[str, Any] = {name: times * getattr(machine, name)}
        if name == "matmul":
            changed["matmul_narrow"] = times * machine.matmul_narrow
        found = search(
            ask.shape, replace(machine, **changed), calibration.factors, world=cluster.size, batch=ask.batch,
            limits=limits, keep=1,
        )  # fmt: skip
        saved.append((wish, 1 - float(found.seconds[0]) / step_s))
    return tuple(sorted(saved, key=lambda each: -each[1]))


def parts_of(record: StepTime | Memory) -> dict[str, float]:
    """Of the one layout that a record of one row holds, largest first."""
    parts = {name: float(np.asarray(value).reshape(-1)[0]) for name, value in record.parts().items()}
    return dict(sorted(parts.items(), key=lambda each: -each[1]))

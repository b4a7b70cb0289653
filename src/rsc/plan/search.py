"""Every layout of a model on so many devices, scored at once; the fastest that fit. No torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rsc.errors import ConfigError
from rsc.plan.memory import RESERVE, memory
from rsc.plan.step_time import Factors, step_time
from rsc.plan.work import Column, Layouts, Machine, Shape
from rsc.units import format_bytes

_CHUNK = 1 << 15
"""Layouts scored together: their columns stay in a core's cache."""


@dataclass(frozen=True)
class SearchResult:
    """The fastest layouts, best first, and how many were looked at."""

    plans: Layouts
    seconds: Any
    num_scored: int
    num_fit: int


@dataclass(frozen=True)
class Limits:
    """What a layout may use; a tuple pins an axis to its values."""

    bits: int = 16
    tp: tuple[int, ...] = ()
    pp: tuple[int, ...] = ()
    cp: tuple[int, ...] = ()
    ep: tuple[int, ...] = ()
    micro: tuple[int, ...] = ()
    recompute: tuple[int, ...] = (0, 1, 2)
    shard: tuple[int, ...] = (0, 1, 2, 3)
    offload: tuple[bool, ...] = (False,)


class NothingDivides(ConfigError):
    """No layout divides batch, model and devices."""


class NothingFits(ConfigError):
    """The leanest layout is too large for a device's memory."""

    def __init__(self, least_bytes: float, *, spared: float) -> None:
        super().__init__(
            f"the model fits nowhere: the leanest layout needs {format_bytes(least_bytes)} a rank"
        )
        self.least_bytes = least_bytes
        self.spared_bytes = spared
        """What it holds in moments, which host memory can take."""


def search(
    shape: Shape, machine: Machine, factors: Factors, *, world: int, batch: int, limits: Limits, keep: int = 5
) -> SearchResult:
    """`batch` sequences a step. Raises NothingDivides or NothingFits."""
    best: list[tuple[float, dict[str, Any]]] = []
    scored = fit = 0
    smallest, smallest_plan = np.inf, None
    for plan in layouts(shape, world=world, batch=batch, limits=limits):
        held = memory(shape, plan).total
        scored += len(held)
        fits = held <= (1 - RESERVE) * machine.memory
        least = int(held.argmin())
        if held[least] < smallest:
            smallest, smallest_plan = float(held[least]), plan.take([least])
        if not fits.any():
            continue
        plan = plan.take(fits)
        seconds = step_time(shape, plan, machine, factors).total
        fit += len(seconds)
        for at in np.argsort(seconds, kind="stable")[:keep]:
            best.append(
                (float(seconds[at]), {f.name: float(getattr(plan, f.name)[at]) for f in fields(Layouts)})
            )
        best = sorted(best, key=lambda each: each[0])[:keep]
    if not scored:
        raise NothingDivides(f"no layout divides {batch} sequences a step over {world} accelerators")
    if not best:
        assert smallest_plan is not None, "layouts were scored"
        raise NothingFits(smallest, spared=float(memory(shape, smallest_plan).moments[0]))
    columns = {f.name: np.array([plan[f.name] for _, plan in best]) for f in fields(Layouts)}
    return SearchResult(Layouts(**columns), np.array([seconds for seconds, _ in best]), scored, fit)


def layouts(shape: Shape, *, world: int, batch: int, limits: Limits) -> Iterator[Layouts]:
    """Columns of layouts that divide model, batch and devices."""
    held: list[Column] = []
    for tp, pp, cp in _axes(shape, world=world, limits=limits):
        dp = world // (tp * pp * cp)
        if batch % dp:
            continue
        held.append(_of_axes(shape, dp=dp, tp=tp, pp=pp, cp=cp, per_rank=batch // dp, limits=limits))
        if sum(map(len, held)) >= _CHUNK:
            table = np.concatenate(held)
            whole = len(table) // _CHUNK * _CHUNK
            for start in range(0, whole, _CHUNK):
                yield _plan(table[start : start + _CHUNK], batch=batch, limits=limits)
            held = [table[whole:]]
    if any(map(len, held)):
        yield _plan(np.concatenate(held), batch=batch, limits=limits)


_COLUMNS = ("dp", "tp", "cp", "pp", "ep", "micro", "virtual", "zero_bubble", "recompute", "shard", "offload")


def _of_axes(shape: Shape, *, dp: int, tp: int, pp: int, cp: int, per_rank: int, limits: Limits) -> Column:
    """[layouts, columns]: all that the other axes allow beside these."""
    micros = [count for count in _divisors(per_rank) if not limits.micro or count in limits.micro]
    virtuals = _divisors(-(-int(shape.layers) // pp)) if pp > 1 else [1]
    eps = [ep for ep in _divisors(int(shape.experts) or 1) if (dp * cp * tp) % ep == 0]
    eps = [ep for ep in eps if not limits.ep or ep in limits.ep]
    shards = [shard for shard in limits.shard if dp * cp > 1 or shard == min(limits.shard)]
    bubbles = (False, True) if pp > 1 else (False,)
    free = (eps, micros, virtuals, bubbles, limits.recompute, shards, limits.offload)
    grid = np.meshgrid(*(np.array(each, dtype=np.float64) for each in free), indexing="ij")
    others = np.stack([each.ravel() for each in grid], axis=1)
    others = others[~((others[:, 3] == 1) & (others[:, 2] > 2))]  # zero bubble has one or two stages a rank
    fixed = np.broadcast_to(np.array([dp, tp, cp, pp], dtype=np.float64), (len(others), 4))
    return np.concatenate([fixed, others], axis=1)


def least_bytes(shape: Shape, *, world: int, batch: int, limits: Limits) -> float:
    """Of the leanest layout on so many devices; infinite where none divides."""
    held = (
        memory(shape, plan).total.min() for plan in layouts(shape, world=world, batch=batch, limits=limits)
    )
    return float(min(held, default=math.inf))


def dividing_batches(shape: Shape, *, world: int, batch: int, limits: Limits) -> list[int]:
    """Numbers of sequences nearest to `batch` that some layout divides, nearest first."""
    found = set()
    for tp, pp, cp in _axes(shape, world=world, limits=limits):
        dp = world // (tp * pp * cp)
        found |= {max(1, batch // dp) * dp, -(-batch // dp) * dp}
    return sorted(found, key=lambda size: (abs(size - batch), size))


def _axes(shape: Shape, *, world: int, limits: Limits) -> Iterator[tuple[int, int, int]]:
    """(tp, pp, cp) that divide devices and model."""
    for tp, pp, cp in itertools.product(*(_axis(world, wish) for wish in (limits.tp, limits.pp, limits.cp))):
        if world % (tp * pp * cp) == 0 and _divides(shape, tp=tp, pp=pp, cp=cp):
            yield tp, pp, cp


def _plan(table: Column, *, batch: int, limits: Limits) -> Layouts:
    size, columns = len(table), dict(zip(_COLUMNS, np.ascontiguousarray(table.T), strict=True))
    same = {**_CONSTANT, "batch": batch, "bits": limits.bits}
    return Layouts(**columns, **{name: np.full(size, float(value)) for name, value in same.items()})


_CONSTANT = {"shard_ranks": 0, "sequence_parallel": 1, "age": 2.0, "eager": 0, "unfused": 0}


def _axis(world: int, wish: tuple[int, ...]) -> list[int]:
    return [size for size in _divisors(world) if not wish or size in wish]


def _divides(shape: Shape, *, tp: int, pp: int, cp: int) -> bool:
    heads, layers, sequence = int(shape.heads), int(shape.layers), int(shape.sequence)
    if heads % tp or int(shape.width) % tp or pp > layers:
        return False
    if pp > 1 and layers % pp and (layers + 2) % pp:  # embedding and scores may count as two layers
        return False
    return cp == 1 or (sequence % (2 * cp) == 0 and sequence // cp >= 1024)


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})

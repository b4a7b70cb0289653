"""What a plan that is none says: by how much it misses, and the smallest change that helps. No torch here.

Every number in a hint was tried: the layouts that it promises are enumerated, not estimated.
"""

from __future__ import annotations

import math

from rsc.errors import ConfigError
from rsc.plan.machines import Cluster, accelerators
from rsc.plan.memory import RESERVE
from rsc.plan.question import Question
from rsc.plan.search import Limits, NothingFits, dividing_batches, least_bytes
from rsc.units import format_bytes

_MOST = 1 << 17
"""Accelerators up to which a larger cluster is looked for."""
_NEAR = 64
"""Fewer accelerators that are tried for a batch that none divides."""


def pinned_apart(ask: Question, cluster: Cluster, limits: Limits) -> ConfigError | None:
    """Axes that a recipe's settings pin, and that these accelerators or this model cannot have."""
    pins = {name: getattr(limits, name)[0] for name in ("tp", "pp", "cp") if getattr(limits, name)}
    ranks = math.prod(pins.values())
    axes = " x ".join(f"{name} {size}" for name, size in pins.items())
    shape = ask.shape
    for axis, what, count in (("tp", "heads", shape.heads), ("tp", "features", shape.width)):
        if int(count) % pins.get(axis, 1):
            return ConfigError(
                f"{axis} {pins[axis]} does not divide {int(count)} {what}", hint="pin another, or none"
            )
    if cluster.size % ranks == 0:
        return None
    count = -(-cluster.size // ranks) * ranks
    works = math.isfinite(least_bytes(shape, world=count, batch=ask.batch, limits=limits))
    return ConfigError(
        f"{axes} needs a multiple of {ranks} accelerators, there are {cluster.size}",
        hint=(f"take --gpus {count}, or " if works else "") + "leave parallel.* to the plan",
    )


def nothing_divides(ask: Question, cluster: Cluster, limits: Limits) -> ConfigError:
    shape, world, length = ask.shape, cluster.size, int(ask.shape.sequence)
    hints = [
        f"set --batch to {size * length} tokens"
        for size in dividing_batches(shape, world=world, batch=ask.batch, limits=limits)[:1]
    ]
    fewer = range(world - 1, max(0, world - _NEAR), -1)
    counts = (n for n in fewer if math.isfinite(least_bytes(shape, world=n, batch=ask.batch, limits=limits)))
    hints += [f"take --gpus {count}" for count in counts][:1]
    model = f"{int(shape.heads)} heads and {int(shape.layers)} layers"
    return ConfigError(
        f"no layout divides {ask.batch} sequences a step, {model} over {world} accelerators",
        hint=", or ".join(hints) or "pin fewer axes with parallel.*",
    )


def nothing_fits(ask: Question, cluster: Cluster, limits: Limits, found: NothingFits) -> ConfigError:
    have = (1 - RESERVE) * 1e9 * cluster.device.memory
    over = f"{format_bytes(found.least_bytes - have)} more than the {format_bytes(have)} that are there"
    hints = []
    if not any(limits.offload) and found.least_bytes - found.spared_bytes <= have:
        hints.append("add --offload: moments wait in host memory")
    count = _more_accelerators(ask, cluster, limits, have=have)
    if count is not None:
        hints.append(f"take --gpus {count}")
    roomy = [(each.memory, name) for name, each in accelerators().items()]
    roomy = [each for each in roomy if (1 - RESERVE) * 1e9 * each[0] >= found.least_bytes]
    if roomy:
        hints.append(f"take --on {min(roomy)[1]}")
    return ConfigError(f"{found.message}, {over}", hint=", or ".join(hints) or "plan a smaller model")


def _more_accelerators(ask: Question, cluster: Cluster, limits: Limits, *, have: float) -> int | None:
    """The fewest in steps of a quarter of a doubling that some layout fits."""
    start = cluster.size
    while start <= _MOST:
        for count in sorted({start * quarters // 4 for quarters in (5, 6, 7, 8)}):
            if (
                count > cluster.size
                and least_bytes(ask.shape, world=count, batch=ask.batch, limits=limits) <= have
            ):
                return count
        start *= 2
    return None

"""Choose the mesh of a job before any process starts, and advise where none fits. No torch.

A recipe that says nothing about axes gets as much data parallelism as its batch allows, which costs the
fewest messages; ranks that are left go to tp, then pp, then cp. Every hint is a change that was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log2

from rsc.errors import ConfigError
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout, ModelFacts, check_layout, sequence_multiple

_NODE = 8  # ranks that usually share a node's fast links: tp beyond them is the last resort
_AXES = ("dp_replicate", "dp_shard", "cp", "tp", "pp")


def choose_layout(config: ParallelConfig, *, world: int, facts: ModelFacts) -> Layout:
    """Fill in what the recipe left open and check the whole. Raises ConfigError with a hint that works."""
    asked = _asked(config, world=world)
    try:
        check_layout(asked, world=world, config=config, facts=facts)
    except ConfigError as refusal:
        if _says_nothing(config) and (found := _most_data_parallel(config, world=world, facts=facts)):
            return replace(found, why=f"{found}: {refusal.message}, so other axes take what is left")
        hint = _advice(asked, world=world, config=config, facts=facts)
        raise ConfigError(refusal.message, hint=hint, **refusal.facts) from None
    return replace(asked, why=_why(asked, config=config))


def _asked(config: ParallelConfig, *, world: int) -> Layout:
    others = config.dp_replicate * config.cp * config.tp * config.pp
    return Layout(
        dp_replicate=config.dp_replicate,
        dp_shard=config.dp_shard or max(1, world // others),
        cp=config.cp,
        tp=config.tp,
        pp=config.pp,
        ep=config.ep,
    )


def _says_nothing(config: ParallelConfig) -> bool:
    others = (config.dp_replicate, config.cp, config.tp, config.pp, config.ep)
    return config.dp_shard == 0 and set(others) == {1}


def _most_data_parallel(config: ParallelConfig, *, world: int, facts: ModelFacts) -> Layout | None:
    """Of the layouts that fit, the one with the fewest messages."""

    def cost(layout: Layout) -> tuple[float, ...]:
        return (-layout.dp, layout.dp_replicate, layout.tp > _NODE, layout.pp, layout.cp)

    return min(_fitting(config, world=world, facts=facts), key=cost, default=None)


def _fitting(config: ParallelConfig, *, world: int, facts: ModelFacts) -> Iterator[Layout]:
    """Every layout of these ranks that keeps the rules; `ep` as asked or the next smaller that fits."""
    for dp_replicate, cp, tp, pp in _degrees(world):
        dp_shard = world // (dp_replicate * cp * tp * pp)
        for ep in range(config.ep, 0, -1):
            layout = Layout(dp_replicate, dp_shard, cp, tp, pp, ep)
            if _fits(layout, world=world, config=config, facts=facts):
                yield layout
                break


def _degrees(world: int) -> Iterator[tuple[int, int, int, int]]:
    """Degrees of the other axes; what they leave is dp_shard."""
    divisors = [degree for degree in range(1, world + 1) if world % degree == 0]
    for pp in divisors:
        for tp in (d for d in divisors if world // pp % d == 0):
            for cp in (d for d in divisors if world // (pp * tp) % d == 0):
                for dp_replicate in (d for d in divisors if world // (pp * tp * cp) % d == 0):
                    yield dp_replicate, cp, tp, pp


def _fits(layout: Layout, *, world: int, config: ParallelConfig, facts: ModelFacts) -> bool:
    try:
        check_layout(layout, world=world, config=config, facts=facts)
    except ConfigError:
        return False
    return True


@dataclass(frozen=True)
class _Change:
    """Something to do about a job that does not fit: settings, or another number of ranks."""

    config: ParallelConfig
    facts: ModelFacts
    world: int

    def works(self) -> bool:
        asked = _asked(self.config, world=self.world)
        return _fits(asked, world=self.world, config=self.config, facts=self.facts)

    def text(self, config: ParallelConfig, *, facts: ModelFacts, world: int) -> str:
        parts = [
            f"parallel.{name}={value}"
            for name, value in self.config.model_dump().items()
            if value != getattr(config, name)
        ]
        if self.facts.sequence_length != facts.sequence_length:
            parts.append(f"data.sequence_length={self.facts.sequence_length}")
        if self.facts.batch_size != facts.batch_size:
            parts.append(f"train.batch_size={self.facts.batch_size}")
        settings = [f"set {' '.join(parts)}"] if parts else []
        ranks = [f"give the job {self.world} ranks"] if self.world != world else []
        return " and ".join([*ranks, *settings])


def _advice(asked: Layout, *, world: int, config: ParallelConfig, facts: ModelFacts) -> str | None:
    """The first changes that work: sizes of the batch, more ranks, the mesh, in this order; at most two."""
    working = [
        change for change in _changes(asked, world=world, config=config, facts=facts) if change.works()
    ]
    texts = [change.text(config, facts=facts, world=world) for change in working]
    return ", or ".join(dict.fromkeys(texts[:2])) or None


def _changes(asked: Layout, *, world: int, config: ParallelConfig, facts: ModelFacts) -> Iterator[_Change]:
    yield _Change(config.model_copy(update={"microbatches": 0}), facts, world)
    rounded = _rounded(asked, facts=facts)
    yield _Change(config, rounded, world)
    others = asked.world // asked.dp_shard
    enough = asked.world if config.dp_shard else -(-world // others) * others
    if enough != world:
        yield _Change(config, facts, enough)
        fewer = world // others * others
        yield _Change(config, facts, fewer or enough)
        if config.dp_shard:
            yield _Change(config.model_copy(update={"dp_shard": 0}), facts, world)
    for known in (facts, rounded):
        nearest = min(
            _fitting(config, world=world, facts=known),
            key=lambda layout: _distance(layout, asked),
            default=None,
        )
        if nearest is not None:
            yield _Change(_settings(nearest, config=config), known, world)
    single = dict.fromkeys((*_AXES, "ep"), 1) | {"dp_shard": 0}
    yield _Change(config.model_copy(update=single), _rounded(Layout(dp_shard=world), facts=facts), world)


def _rounded(layout: Layout, *, facts: ModelFacts) -> ModelFacts:
    """Batch and sequence at the next size that divides."""
    return replace(
        facts,
        batch_size=_round_up(facts.batch_size, layout.dp * facts.accumulate),
        sequence_length=_round_up(facts.sequence_length, sequence_multiple(layout)),
    )


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _settings(layout: Layout, *, config: ParallelConfig) -> ParallelConfig:
    degrees = {axis: getattr(layout, axis) for axis in (*_AXES, "ep")}
    if not config.dp_shard:
        degrees["dp_shard"] = 0
    return config.model_copy(update=degrees)


def _distance(layout: Layout, asked: Layout) -> tuple[float, int]:
    """How far the degrees are from the asked ones, in doublings; then more data parallelism is better."""
    steps = [abs(log2(getattr(layout, axis) / getattr(asked, axis))) for axis in (*_AXES, "ep")]
    return round(sum(steps), 6), -layout.dp


def _why(layout: Layout, *, config: ParallelConfig) -> str:
    if layout.world == 1:
        return "one process: nothing to divide"
    if config.dp_shard:
        return f"{layout}: as the recipe says"
    return f"{layout}: what the recipe leaves open goes to dp_shard, which costs the fewest messages"

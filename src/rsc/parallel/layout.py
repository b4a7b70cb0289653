"""Which rank does what: degrees of the mesh axes, checked and chosen before any process starts. No torch.

    world = dp_replicate x dp_shard x cp x tp x pp        rank order: tp varies fastest, pp slowest

tp exchanges most bytes per step and gets neighbouring ranks (one node); pp least and may cross nodes.
`ep` needs no ranks of its own: experts are spread over dp_shard x cp x tp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from rsc.errors import ConfigError
from rsc.parallel.config import ParallelConfig


@dataclass(frozen=True)
class ModelFacts:
    """The numbers of a model and its batches that limit a layout."""

    num_blocks: int
    batch_size: int
    """Samples of one optimiser step."""
    accumulate: int = 1
    sequence_length: int = 0
    """0: unknown or different in each sample."""
    divisors: tuple[tuple[str, int], ...] = ()
    """(name, size) that tp must divide, such as ("heads", 8)."""
    num_experts: int = 0


@dataclass(frozen=True)
class Layout:
    dp_replicate: int = 1
    dp_shard: int = 1
    cp: int = 1
    tp: int = 1
    pp: int = 1
    ep: int = 1
    why: str = ""

    @property
    def world(self) -> int:
        return self.dp_replicate * self.dp_shard * self.cp * self.tp * self.pp

    @property
    def dp(self) -> int:
        """Groups of ranks that read different samples."""
        return self.dp_replicate * self.dp_shard

    @property
    def fsdp(self) -> int:
        """Ranks that share one copy of the weights: cp ranks hold the same weights, so they share too."""
        return self.dp_shard * self.cp

    def coordinates(self, rank: int) -> dict[str, int]:
        """Position of a rank on each axis."""
        found = {}
        for axis in ("tp", "cp", "dp_shard", "dp_replicate", "pp"):
            rank, found[axis] = divmod(rank, getattr(self, axis))
        return found

    def dp_rank(self, rank: int) -> int:
        """Which part of the batch a rank reads, 0 .. dp - 1."""
        at = self.coordinates(rank)
        return at["dp_replicate"] * self.dp_shard + at["dp_shard"]

    def __str__(self) -> str:
        axes = ("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep")
        used = [f"{axis} {getattr(self, axis)}" for axis in axes if getattr(self, axis) > 1]
        return " x ".join(used) or "one process"


def choose_layout(config: ParallelConfig, *, world: int, facts: ModelFacts) -> Layout:
    """Fill in what the recipe left open (`dp_shard = 0`) and check the whole. Raises ConfigError."""
    others = config.dp_replicate * config.cp * config.tp * config.pp
    dp_shard = config.dp_shard or max(1, world // others)
    layout = Layout(
        dp_replicate=config.dp_replicate,
        dp_shard=dp_shard,
        cp=config.cp,
        tp=config.tp,
        pp=config.pp,
        ep=config.ep,
    )
    _check_world(layout, world=world)
    _check_model(layout, config=config, facts=facts)
    _check_batch(layout, config=config, facts=facts)
    return replace(layout, why=_why(layout, config=config))


def microbatches(layout: Layout, *, config: ParallelConfig, local_batch: int) -> int:
    """Microbatches of one backward pass: what the recipe says, else two per stage where the batch has them.

    Two per stage leaves (stages - 1) / (2 * stages + stages - 1) of the time idle under 1F1B.
    """
    if layout.pp == 1:
        return 1
    if config.microbatches:
        return config.microbatches
    wanted = min(2 * num_stages(layout, config=config), local_batch)
    return next(count for count in range(wanted, 0, -1) if local_batch % count == 0)


def num_stages(layout: Layout, *, config: ParallelConfig) -> int:
    """Stages of the pipeline: one per rank, or two where the schedule wants that."""
    return layout.pp * (1 if config.pp_schedule == "1f1b" else 2)


def _check_world(layout: Layout, *, world: int) -> None:
    if layout.world == world:
        return
    arithmetic = (
        f"dp_replicate {layout.dp_replicate} x dp_shard {layout.dp_shard} x cp {layout.cp} x tp {layout.tp} "
        f"x pp {layout.pp} needs {layout.world} ranks, the job has {world}"
    )
    others = layout.world // layout.dp_shard
    if world % others == 0:
        hint = f"set parallel.dp_shard={world // others}, or 0 to take what is left"
    else:
        hint = f"give the job {-(-world // others) * others} ranks, or set {_fitting(layout, world=world)}"
    raise ConfigError(arithmetic, hint=hint, needed=layout.world, world=world)


def _fitting(layout: Layout, *, world: int) -> str:
    """The largest degrees not above the asked ones whose product divides the world."""
    shrunk = layout
    for axis in ("dp_replicate", "cp", "pp", "tp"):
        rest = shrunk.dp_replicate * shrunk.cp * shrunk.pp * shrunk.tp
        if world % rest == 0:
            break
        other = rest // getattr(shrunk, axis)
        fitting = [d for d in range(getattr(shrunk, axis), 0, -1) if world % (d * other) == 0]
        degrees: dict[str, Any] = {axis: fitting[0] if fitting else 1}
        shrunk = replace(shrunk, **degrees)
    found = {axis: getattr(shrunk, axis) for axis in ("dp_replicate", "cp", "tp", "pp")}
    found["dp_shard"] = world // prod(found.values())
    return " ".join(f"parallel.{axis}={degree}" for axis, degree in found.items())


def _check_model(layout: Layout, *, config: ParallelConfig, facts: ModelFacts) -> None:
    for name, size in facts.divisors:
        if size % layout.tp:
            raise ConfigError(
                f"tp {layout.tp} does not divide {name} {size}",
                hint=f"set parallel.tp={_largest_divisor(size, limit=layout.tp)}",
            )
    stages = num_stages(layout, config=config)
    if stages > facts.num_blocks:
        raise ConfigError(
            f"pp {layout.pp} makes {stages} stages, the model has {facts.num_blocks} blocks",
            hint=f"set parallel.pp={facts.num_blocks * layout.pp // stages}",
        )
    if layout.ep > 1:
        _check_experts(layout, facts=facts)
    chunk = 2 * layout.cp if layout.cp > 1 else 1
    if facts.sequence_length % (chunk * layout.tp):
        raise ConfigError(
            f"sequence_length {facts.sequence_length} does not divide by "
            f"{'2 x ' if layout.cp > 1 else ''}cp {layout.cp} x tp {layout.tp} = {chunk * layout.tp}",
            hint=f"set data.sequence_length="
            f"{-(-facts.sequence_length // (chunk * layout.tp)) * chunk * layout.tp}",
        )


def _check_experts(layout: Layout, *, facts: ModelFacts) -> None:
    if not facts.num_experts:
        raise ConfigError(f"ep {layout.ep}, but the model has no experts", hint="set parallel.ep=1")
    holders = layout.dp_shard * layout.cp * layout.tp
    fitting = [d for d in range(1, layout.ep + 1) if holders % d == 0 and facts.num_experts % d == 0]
    hint = f"set parallel.ep={fitting[-1]}"
    if facts.num_experts % layout.ep:
        raise ConfigError(f"ep {layout.ep} does not divide {facts.num_experts} experts", hint=hint)
    if holders % layout.ep:
        raise ConfigError(
            f"ep {layout.ep} does not divide dp_shard {layout.dp_shard} x cp {layout.cp} x tp {layout.tp} "
            f"= {holders} ranks",
            hint=hint,
        )


def _check_batch(layout: Layout, *, config: ParallelConfig, facts: ModelFacts) -> None:
    parts = layout.dp * facts.accumulate
    if facts.batch_size % parts:
        raise ConfigError(
            f"batch_size {facts.batch_size} does not divide by dp {layout.dp} x accumulate "
            f"{facts.accumulate} = {parts}",
            hint=f"set train.batch_size={-(-facts.batch_size // parts) * parts}",
        )
    local = facts.batch_size // parts
    micro = config.microbatches if layout.pp > 1 else 1
    if micro and local % micro:
        raise ConfigError(
            f"a rank's {local} samples do not divide into {micro} microbatches",
            hint=f"set parallel.microbatches={_largest_divisor(local, limit=micro)}",
        )


def _largest_divisor(size: int, *, limit: int) -> int:
    return next(d for d in range(min(limit, size), 0, -1) if size % d == 0)


def _why(layout: Layout, *, config: ParallelConfig) -> str:
    if layout.world == 1:
        return "one process: nothing to divide"
    if config.dp_shard:
        return f"{layout}: as the recipe says"
    return f"{layout}: what the recipe leaves open goes to dp_shard, which costs the fewest messages"

"""Which rank does what: degrees of the mesh axes, and the rules they must keep. No torch.

    world = dp_replicate x dp_shard x cp x tp x pp        rank order: tp varies fastest, pp slowest

tp exchanges most bytes per step and gets neighbouring ranks (one node); pp least and may cross nodes.
`ep` needs no ranks of its own: experts are spread over dp_shard x cp x tp. How a layout is chosen, and what
is advised where none fits, is in parallel/choose.py.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    refusals: tuple[tuple[str, str], ...] = ()
    """(axis, why this model cannot be divided along it)."""


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


def microbatches(layout: Layout, *, config: ParallelConfig, local_batch: int) -> int:
    """Microbatches of one backward pass: what the recipe says, else two per stage where the batch has them.

    Two per stage leaves (stages - 1) / (2 * stages + stages - 1) of the time idle under 1F1B.
    """
    if layout.pp == 1:
        return 1
    if config.microbatches:
        return config.microbatches
    wanted = min(2 * num_stages(layout, config=config), local_batch)
    return next(
        count
        for count in range(wanted, 0, -1)
        if local_batch % count == 0 and _fits_rounds(count, layout=layout, config=config)
    )


def num_stages(layout: Layout, *, config: ParallelConfig) -> int:
    """Stages of the pipeline: one per rank, or two where the schedule wants that."""
    return layout.pp * (1 if config.pp_schedule == "1f1b" else 2)


def check_layout(layout: Layout, *, world: int, config: ParallelConfig, facts: ModelFacts) -> None:
    """Raises ConfigError with the arithmetic of the first rule that is broken; no hint."""
    if layout.world != world:
        raise ConfigError(
            f"dp_replicate {layout.dp_replicate} x dp_shard {layout.dp_shard} x cp {layout.cp} x "
            f"tp {layout.tp} x pp {layout.pp} needs {layout.world} ranks, the job has {world}",
            needed=layout.world,
            world=world,
        )
    for axis, reason in facts.refusals:
        if getattr(layout, axis) > 1:
            raise ConfigError(f"{axis} {getattr(layout, axis)}: {reason}")
    _check_model(layout, config=config, facts=facts)
    _check_experts(layout, facts=facts)
    _check_sequence(layout, facts=facts)
    _check_batch(layout, config=config, facts=facts)


def _check_model(layout: Layout, *, config: ParallelConfig, facts: ModelFacts) -> None:
    for name, size in facts.divisors:
        if size % layout.tp:
            raise ConfigError(f"tp {layout.tp} does not divide {name} {size}")
    stages = num_stages(layout, config=config)
    if layout.pp > 1 and stages > facts.num_blocks:
        raise ConfigError(f"pp {layout.pp} makes {stages} stages, the model has {facts.num_blocks} blocks")


def _check_experts(layout: Layout, *, facts: ModelFacts) -> None:
    if layout.ep == 1:
        return
    if not facts.num_experts:
        raise ConfigError(f"ep {layout.ep}, but the model has no experts")
    if facts.num_experts % layout.ep:
        raise ConfigError(f"ep {layout.ep} does not divide {facts.num_experts} experts")
    holders = layout.dp_shard * layout.cp * layout.tp
    if holders % layout.ep:
        raise ConfigError(
            f"ep {layout.ep} does not divide dp_shard {layout.dp_shard} x cp {layout.cp} x tp {layout.tp} "
            f"= {holders} ranks"
        )


def _check_sequence(layout: Layout, *, facts: ModelFacts) -> None:
    chunk = sequence_multiple(layout)
    if facts.sequence_length % chunk:
        raise ConfigError(
            f"sequence_length {facts.sequence_length} does not divide by "
            f"{'2 x ' if layout.cp > 1 else ''}cp {layout.cp} x tp {layout.tp} = {chunk}"
        )


def sequence_multiple(layout: Layout) -> int:
    """A packed sequence divides by this: two chunks per cp rank, each cut by tp."""
    return (2 * layout.cp if layout.cp > 1 else 1) * layout.tp


def _check_batch(layout: Layout, *, config: ParallelConfig, facts: ModelFacts) -> None:
    parts = layout.dp * facts.accumulate
    if facts.batch_size % parts:
        raise ConfigError(
            f"batch_size {facts.batch_size} does not divide by dp {layout.dp} x accumulate "
            f"{facts.accumulate} = {parts}"
        )
    local = facts.batch_size // parts
    micro = config.microbatches if layout.pp > 1 else 0
    if not micro:
        return
    if local % micro:
        raise ConfigError(f"a rank's {local} samples do not divide into {micro} microbatches")
    if not _fits_rounds(micro, layout=layout, config=config):
        raise ConfigError(
            f"{config.pp_schedule} runs microbatches in rounds of about pp {layout.pp}: {micro} microbatches "
            f"do not divide into {micro // layout.pp} rounds"
        )


def _fits_rounds(count: int, *, layout: Layout, config: ParallelConfig) -> bool:
    """Schedules with two stages per rank go round: the rounds must be alike (torch's own rule)."""
    return config.pp_schedule == "1f1b" or count % max(1, count // layout.pp) == 0

"""What a parallel layout needs to know about a model, as data: names of modules and their roles.

The `parallel` room reads this and applies a mesh; nothing here knows ranks or process groups.
Names are those of `model.named_modules()`; a stage of a pipeline keeps the names of what it holds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rsc.models.config import ModelConfig


class Role(enum.Enum):
    """How the tensor axis treats a module."""

    VOCABULARY_IN = "vocabulary_in"  # nn.Embedding [V, D], rows split; output summed over the axis
    GATHER_IN = "gather_in"  # its input must be whole in L; it contains COLUMNS and ROWS
    COLUMNS = "columns"  # nn.Linear split by output features; its output stays split
    ROWS = "rows"  # nn.Linear split by input features; its output is summed over the axis
    NORM = "norm"  # weight whole; works on a part of L (sequence parallelism)
    ATTENTION_CORE = "attention_core"  # no weights; context parallelism replaces it
    ROUTER = "router"  # parameter `weight` and buffers whole on every rank; works on a part of L
    EXPERTS = "experts"  # stacked parameters [X, ...], split over the expert axis by dim 0
    WHOLE = "whole"  # weights and work the same on every tensor rank
    COMPANY = "company"  # no weights; gives the rows of all data-parallel ranks
    VOCABULARY_OUT = "vocabulary_out"  # parameter `weight` [V, D], rows split; loss over split logits


@dataclass(frozen=True)
class PlacementPlan:
    """Roles by module name, and the units in the order in which a record meets them."""

    roles: dict[str, Role]
    units: tuple[str, ...]
    """FSDP wraps each of these (what is left belongs to the root); activation recomputation too."""
    stages: tuple[tuple[str, ...], ...]
    """Smallest pipeline stages in order: each is a group of module names that stay together."""
    cuts_batch: bool
    """Whether stem and head work position by position, so that context parallelism can cut the batch itself;
    otherwise they need the whole sequence and only the trunk sees parts of it."""
    divisors: dict[str, int]
    """`heads` (key/value heads), `mlp_width`, `vocabulary`: the tensor axis must divide each;
    `experts`: the expert axis must."""


def placement_plan(config: ModelConfig) -> PlacementPlan:
    blocks = [f"trunk.blocks.{layer}" for layer in range(config.trunk.num_layers)]
    roles: dict[str, Role] = {"trunk.norm": Role.NORM}
    for layer, block in enumerate(blocks):
        mlp = _expert_roles if config.trunk.has_experts(layer) else _mlp_roles
        roles |= _block_roles(block) | mlp(f"{block}.mlp", config=config)
    divisors = {"heads": config.trunk.kv_heads, "mlp_width": config.trunk.mlp_width}
    if config.trunk.moe is not None:
        divisors["experts"] = config.trunk.moe.num_experts
    for stem in ("image", "audio"):
        if getattr(config, stem) is not None:
            roles[f"stems.{stem}"] = Role.WHOLE
    if config.text is not None:
        roles["stems.text.embedding"] = Role.VOCABULARY_IN
        if config.text.ngrams or config.text.words:
            roles["stems.text.ngrams"] = Role.WHOLE
        divisors["vocabulary"] = config.text.rows
    task = config.task
    roles["head"] = Role.VOCABULARY_OUT if task.answers_tokens else Role.WHOLE
    stages: tuple[tuple[str, ...], ...] = (
        ("stems",),
        *((block,) for block in blocks),
        ("trunk.norm", "head"),
    )
    if task.compares_samples:  # the trunk runs twice, once for each side
        stages = (tuple(name for stage in stages for name in stage),)
        roles["head.company"] = Role.COMPANY
    return PlacementPlan(
        roles=roles, units=tuple(blocks), stages=stages, cuts_batch=task.answers_tokens, divisors=divisors
    )


def _block_roles(block: str) -> dict[str, Role]:
    return {
        f"{block}.attention_norm": Role.NORM,
        f"{block}.attention": Role.GATHER_IN,
        f"{block}.attention.qkv": Role.COLUMNS,
        f"{block}.attention.core": Role.ATTENTION_CORE,
        f"{block}.attention.out": Role.ROWS,
        f"{block}.mlp_norm": Role.NORM,
    }


def _mlp_roles(mlp: str, *, config: ModelConfig) -> dict[str, Role]:
    return {
        mlp: Role.GATHER_IN,
        f"{mlp}.gate": Role.COLUMNS,
        f"{mlp}.up": Role.COLUMNS,
        f"{mlp}.down": Role.ROWS,
    }


def _expert_roles(mlp: str, *, config: ModelConfig) -> dict[str, Role]:
    roles = {f"{mlp}.router": Role.ROUTER, f"{mlp}.experts": Role.EXPERTS}
    if config.trunk.moe is not None and config.trunk.moe.num_shared:
        roles |= _mlp_roles(f"{mlp}.shared", config=config)
    return roles

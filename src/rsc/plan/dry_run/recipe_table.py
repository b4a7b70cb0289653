"""`rsc train RECIPE --dry-run --world-size N`: the start of a large job, on this machine, without memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsc.parallel.apply import How
from rsc.plan.dry_run.dry_run import DryRun, dry_run
from rsc.recipes.recipe import Recipe
from rsc.units import format_bytes

_MOMENTS = {"adamw": 2, "muon": 2}
"""Tensors of a weight's size that the optimiser keeps; Muon's own weights have one: an upper bound."""


def dry_run_recipe(recipe: Recipe, *, world: int) -> DryRun:
    """Check the layout, build every distinct stage, count. Raises ConfigError as a real start would."""
    layout = recipe.layout(world=world)
    precision = recipe.train.precision
    how = How(
        config=recipe.parallel,
        dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
        recompute=recipe.train.recompute,
        local_batch=recipe.train.batch_size // (layout.dp * recipe.train.accumulate),
    )
    return dry_run(
        recipe.model,
        layout=layout,
        how=how,
        moments=_MOMENTS[recipe.train.optimizer.name],
        sequence_length=recipe.data.sequence_length,
        accumulate=recipe.train.accumulate,
    )


@dataclass(frozen=True)
class TableColumn:
    title: str
    field: str


_COLUMNS = (
    TableColumn("weights", "parameter_bytes"),
    TableColumn("gradients", "gradient_bytes"),
    TableColumn("optimiser", "optimizer_bytes"),
    TableColumn("activations", "activation_bytes"),
    TableColumn("gathered", "gathered_bytes"),
    TableColumn("peak", "peak_bytes"),
)


def table_of(run: DryRun) -> tuple[list[str], list[list[str]]]:
    """Header and rows for people: one row per distinct pipeline rank."""
    header = ["pp rank", *(column.title for column in _COLUMNS), "PFLOP/step", "sent/step"]
    rows: dict[tuple[str, ...], list[str]] = {}
    for rank in run.ranks:
        cells = [format_bytes(getattr(rank, column.field)) for column in _COLUMNS]
        cells.append(f"{rank.flops_per_step / 1e15:.3g}")
        sent = sorted(rank.sent_bytes_per_step.items())
        cells.append(" ".join(f"{axis} {format_bytes(size)}" for axis, size in sent))
        rows.setdefault(tuple(cells), []).append(str(rank.pp_rank))
    return header, [[_ranges(numbers), *cells] for cells, numbers in rows.items()]


def _ranges(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]} ({len(numbers)})"

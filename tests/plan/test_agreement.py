"""Count, plan and dry run agree; tests/plan/test_dry_run.py holds the dry run to jobs that really run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsc.models import cpu_kernels
from rsc.models.build import build_model
from rsc.models.counts import count_units
from rsc.parallel.apply import How
from rsc.plan.dry_run.dry_run import fake_group
from rsc.plan.dry_run.recipe_table import dry_run_recipe
from rsc.plan.dry_run.unit_cost import unit_cost
from rsc.plan.memory import activation_bytes_per_token, memory
from rsc.plan.work import Layouts, shape_of
from rsc.recipes.recipe import load_recipe

LENGTH, ROWS = 512, 2


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize(("heads", "groups", "inner"), [(8, 4, 1536), (8, 8, 512), (24, 8, 2048)])
def test_a_block_saves_what_the_plan_says(
    tp: int, heads: int, groups: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1 %, beside the mask of documents and the rotary tables, which all blocks share; with the
    kernels of a GPU: those of the CPU keep the scores of short sequences."""
    monkeypatch.setattr(cpu_kernels, "MAX_SCORE_BYTES", -1)
    trunk = {
        "width": 64 * heads,
        "num_heads": heads,
        "num_kv_heads": groups,
        "mlp_width": inner,
        "num_layers": 1,
    }
    settings = {"data.name": "none", "data.sequence_length": LENGTH, "train.accumulate": 1}
    settings |= {"parallel.tp": tp, "train.batch_size": ROWS}
    settings |= {f"model.trunk.{name}": size for name, size in trunk.items()}
    recipe = load_recipe("llama-10m", overrides=[f"{key}={value}" for key, value in settings.items()]).recipe
    layout = recipe.layout(world=tp)
    how = How(config=recipe.parallel, dtype=torch.bfloat16, recompute="none", local_batch=ROWS)
    with fake_group(layout) as mesh:
        model = build_model(recipe.model, device="meta")
        cost = unit_cost(model, {"trunk.blocks.0"}, mesh=mesh, how=how, sequence_length=LENGTH)
    shape = shape_of(recipe.model, sequence=LENGTH)
    whole, _ = activation_bytes_per_token(shape, Layouts(tp=tp))
    shared = 2 * ROWS * LENGTH**2 + 2 * 2 * LENGTH * 32
    assert float(whole) * ROWS * LENGTH + shared == pytest.approx(cost.saved_bytes, rel=0.01)


@pytest.mark.parametrize(
    ("name", "world", "axes"),
    [
        ("llama-10m", 2, {}),
        pytest.param("llama-8b", 8, {}, marks=pytest.mark.slow),
        pytest.param("llama-8b", 8, {"tp": 2}, marks=pytest.mark.slow),
    ],
)
def test_weights_and_moments_of_all_ranks_are_those_of_the_dry_run(
    name: str, world: int, axes: dict[str, int]
) -> None:
    recipe = load_recipe(
        name, overrides=["data.name=none", *(f"parallel.{axis}={size}" for axis, size in axes.items())]
    ).recipe
    dry = dry_run_recipe(recipe, world=world)
    layout = dry.layout
    plan = Layouts(dp=layout.dp, tp=layout.tp, cp=layout.cp, pp=layout.pp, ep=layout.ep, shard=3,
                shard_ranks=layout.fsdp, batch=recipe.train.batch_size)  # fmt: skip
    planned = memory(shape_of(recipe.model, sequence=512), plan)
    assert dry.num_parameters == count_units(recipe.model).total
    fullest = max(rank.parameter_bytes for rank in dry.ranks)
    tolerance = 0.0 if layout.pp == 1 and layout.tp == 1 else 0.01
    assert float(planned.weights) == pytest.approx(fullest, rel=tolerance)
    assert float(planned.moments) == pytest.approx(max(r.optimizer_bytes for r in dry.ranks), rel=tolerance)
    assert np.isfinite(float(planned.total))

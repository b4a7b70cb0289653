"""Dry runs of a trillion parameters: counts against closed forms, and against a job that really runs."""

from __future__ import annotations

import pytest

from rsc.parallel.dryrun import DryRun, in_flight
from rsc.parallel.layout import Layout
from rsc.train.dryrun import dry_run_recipe
from rsc.train.recipe import Recipe, load_recipe

WORLD = 4096


@pytest.fixture(scope="module", params=["dense-1t", "moe-1t"])
def trillion(request: pytest.FixtureRequest) -> tuple[Recipe, DryRun]:
    recipe = load_recipe(request.param, overrides=["data.name=none"]).recipe
    return recipe, dry_run_recipe(recipe, world=WORLD)


def test_parameters_and_optimiser_are_the_closed_form(trillion: tuple[Recipe, DryRun]) -> None:
    _, run = trillion
    copies = run.layout.dp * run.layout.cp * run.layout.tp
    held = copies * sum(rank.num_parameters for rank in run.ranks)
    assert run.num_parameters == pytest.approx(1e12, rel=0.01)
    assert held == pytest.approx(run.num_parameters, rel=0.01)
    optimizer = copies * sum(rank.optimizer_bytes for rank in run.ranks)
    assert optimizer == pytest.approx(run.num_parameters * 2 * 4, rel=0.01)


def test_flops_are_six_per_active_weight_and_token_and_the_recompute(trillion: tuple[Recipe, DryRun]) -> None:
    """Weights: 2 forward, 4 backward, 2 again to recompute. Attention over the whole square: 4 forward and
    again, 10 backward, because a flash kernel makes the scores once more."""
    recipe, run = trillion
    trunk, length = recipe.model.trunk, recipe.data.sequence_length
    tokens = recipe.train.batch_size * length
    blocks = sum(_active_weights(recipe, layer) for layer in range(trunk.num_layers))
    assert recipe.model.text is not None
    head = recipe.model.text.rows * trunk.width
    attention = 18 * trunk.num_layers * length * trunk.num_heads * trunk.head_features
    expected = tokens * (8 * blocks + attention + 6 * head)
    copies = run.layout.dp * run.layout.cp * run.layout.tp
    assert copies * sum(rank.flops_per_step for rank in run.ranks) == pytest.approx(expected, rel=0.01)


def _active_weights(recipe: Recipe, layer: int) -> int:
    trunk = recipe.model.trunk
    heads = trunk.head_features * (2 * trunk.num_heads + 2 * trunk.kv_heads)
    if not trunk.has_experts(layer):
        return trunk.width * (heads + 3 * trunk.mlp_width)
    moe = trunk.moe
    assert moe is not None
    return trunk.width * (heads + moe.num_experts + 3 * moe.expert_width * (moe.top_k + moe.num_shared))


def test_microbatches_in_flight() -> None:
    layout = Layout(pp=4)
    assert [in_flight(rank, layout=layout, num_stages=4, count=8) for rank in range(4)] == [4, 3, 2, 1]
    assert [in_flight(rank, layout=layout, num_stages=4, count=2) for rank in range(4)] == [2, 2, 2, 1]
    assert [in_flight(rank, layout=layout, num_stages=8, count=8) for rank in range(4)] == [11, 9, 7, 5]

"""Dry runs of a trillion parameters: counts against closed forms, and against a job that really runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsc.parallel.layout import Layout
from rsc.plan.dry_run.dry_run import DryRun
from rsc.plan.dry_run.rank_report import in_flight
from rsc.plan.dry_run.recipe_table import dry_run_recipe
from rsc.recipes.recipe import Recipe, load_recipe

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


SMALL: dict[str, tuple[int, dict[str, Any], dict[str, Any], bool]] = {
    "fsdp": (2, {}, {}, False),
    "tp": (2, {"tp": 2}, {}, False),
    "cp": (2, {"cp": 2}, {}, False),
    "pp": (2, {"pp": 2}, {}, False),
    "pp interleaved": (2, {"pp": 2, "pp_schedule": "interleaved"}, {}, False),
    "ep": (2, {"ep": 2}, {}, True),
    "fsdp tp, full recompute": (4, {"tp": 2}, {"recompute": "full"}, False),
    "hsdp bf16": (4, {"dp_replicate": 2}, {"precision": "bf16"}, False),
}
"""(world, axes, train settings, experts) of jobs that fit a laptop."""
MEMORY_TOLERANCE = 0.25
"""What passes through a rank (activations, gradients on their way, gathered weights), at its peak; the mean
of ranks that are alike, because messages end, and free their buffers, when they like."""


@pytest.fixture(scope="module")
def small_jobs() -> dict[str, Any]:
    """Each job really run, and run dry."""
    cases = [
        {"name": name, "world": world, "parallel": axes, "moe": moe, "train": {"precision": "fp32", **train}}
        for name, (world, axes, train, moe) in SMALL.items()
    ]
    job = Path(__file__).parent.parent / "parallel" / "measure.py"
    done = subprocess.run([sys.executable, str(job), json.dumps(cases)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_real_job_holds_what_the_dry_run_says(name: str, small_jobs: dict[str, Any]) -> None:
    found = small_jobs[name]
    for real in found["real"]:
        dry = found["dry"][real["pp_rank"]]
        for kind in ("parameter_bytes", "gradient_bytes", "optimizer_bytes"):
            assert real[kind] == dry[kind], kind
    for pp_rank, dry in enumerate(found["dry"]):
        alike = [real["passing_bytes"] for real in found["real"] if real["pp_rank"] == pp_rank]
        passing = dry["activation_bytes"] + dry["gathered_bytes"]
        assert sum(alike) / len(alike) == pytest.approx(passing, rel=MEMORY_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_real_job_sends_what_the_dry_run_says(name: str, small_jobs: dict[str, Any]) -> None:
    """To the byte, but: a dry run hears cp's positions once per block, takes experts as evenly loaded, and
    sends a recomputed block's last message, which the real one stops short of."""
    tolerance = {"cp": 0.03, "ep": 0.03, "fsdp tp, full recompute": 0.12}.get(name, 0.0)
    found = small_jobs[name]
    for real in found["real"]:
        dry = found["dry"][real["pp_rank"]]["sent_bytes_per_step"]
        assert real["sent_bytes"].keys() == dry.keys()
        for axis, size in dry.items():
            assert real["sent_bytes"][axis] == pytest.approx(size, rel=tolerance), axis


def test_microbatches_in_flight() -> None:
    layout = Layout(pp=4)
    assert [in_flight(rank, layout=layout, num_stages=4, count=8) for rank in range(4)] == [4, 3, 2, 1]
    assert [in_flight(rank, layout=layout, num_stages=4, count=2) for rank in range(4)] == [2, 2, 2, 1]
    assert [in_flight(rank, layout=layout, num_stages=8, count=8) for rank in range(4)] == [11, 9, 7, 5]

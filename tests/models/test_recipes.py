"""Every shipped recipe is a model that can be built; its size is what its first line says."""

from __future__ import annotations

import pytest
import torch

from rsc.layers import recipe_names
from rsc.models.build import build_model
from rsc.models.config import ModelConfig
from rsc.recipes.recipe import load_recipe

SIZES = {
    "language": 3.4e6,
    "language-moe": 7.07e6,
    "llama-10m": 10.9e6,
    "llama-150m": 134e6,
    "llama-1b": 1.5e9,
    "llama-3b": 3.6e9,
    "llama-8b": 8.03e9,
    "llama-70b": 70.6e9,
    "llama-405b": 405.9e9,
    "dense-1t": 1.006e12,
    "moe-1t": 0.99e12,
}


def parameters(config: ModelConfig) -> dict[str, torch.Tensor]:
    """On `meta`: a trillion parameters take no memory."""
    return dict(build_model(config, device="meta").named_parameters())


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_builds(name: str) -> None:
    recipe = load_recipe(name, overrides=["data.name=anything"]).recipe
    count = sum(parameter.numel() for parameter in parameters(recipe.model).values())
    assert count == pytest.approx(SIZES.get(name, count), rel=0.01)
    assert name in SIZES or count < 12e6, "a recipe without a stated size is one for a laptop"


def test_active_parameters_of_the_sparse_trillion() -> None:
    config = load_recipe("moe-1t", overrides=["data.name=anything"]).recipe.model
    moe = config.trunk.moe
    assert moe is not None
    share = {True: moe.top_k / moe.num_experts, False: 1.0}
    active = sum(p.numel() * share[".experts." in name] for name, p in parameters(config).items())
    assert active == pytest.approx(36e9, rel=0.02)

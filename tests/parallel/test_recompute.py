"""Forgetting activations changes no gradient, and goes together with torch.compile."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch._dynamo.utils import counters

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.models.heads import Want
from rsc.parallel.recompute import recompute

CONFIG = ModelConfig.model_validate(
    {"trunk": {"width": 16, "num_layers": 2, "num_heads": 2, "mlp_width": 32}, "text": {}}
)
Mode = Literal["none", "selective", "full"]


def gradients(model: Model) -> list[torch.Tensor]:
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    model({"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:]}, Want.LOSS)["total"].backward()
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


def forgetting(mode: Mode) -> Model:
    model = build_model(CONFIG, seed=1)
    recompute(model, units=model.placement_plan().units, mode=mode)
    return model


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_gradients_are_the_same(mode: Mode) -> None:
    torch.testing.assert_close(gradients(forgetting(mode)), gradients(forgetting("none")), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_blocks_that_forget_are_compiled_too(mode: Mode) -> None:
    """They were silently run uncompiled."""
    model = forgetting(mode)
    torch.compiler.reset()
    counters.clear()
    for block in model.trunk.blocks.values():
        block.compile(backend="aot_eager")
    found = gradients(model)
    assert counters["frames"]["ok"] >= 1
    torch.testing.assert_close(found, gradients(forgetting("none")))

"""A process alone computes in bf16 on copies; its weights, gradients and their names stay float32."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.models.heads import Want
from rsc.parallel.recompute import recompute
from rsc.parallel.single import cast_floats, computing_in

TINY = {
    "trunk": {"width": 32, "num_layers": 2, "num_heads": 2, "mlp_width": 64},
    "text": {},
    "head": {"kind": "next_token"},
}


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, 257, (2, 17), generator=torch.Generator().manual_seed(0))
    return {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:]}


def model() -> Model:
    return build_model(ModelConfig.model_validate(TINY), seed=1)


def gradients(of: Model) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in of.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_gradients_are_those_of_a_bf16_model_in_float32(mode: Literal["none", "selective", "full"]) -> None:
    control = model().to(torch.bfloat16)
    control(batch(), Want.LOSS)["total"].backward()
    ours = model()
    recompute(ours, units=ours.placement_plan().units, mode=mode)
    before = dict(ours.named_parameters())
    with computing_in(torch.bfloat16, model=ours):
        ours(batch(), Want.LOSS)["total"].backward()
    assert all(weight is before[name] for name, weight in ours.named_parameters())
    found = gradients(ours)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    torch.testing.assert_close(
        found, {name: g.float() for name, g in gradients(control).items()}, rtol=0, atol=0
    )


def test_weights_come_back_after_a_failure() -> None:
    ours = model()
    before = dict(ours.named_parameters())
    with pytest.raises(RuntimeError), computing_in(torch.bfloat16, model=ours):
        raise RuntimeError("out of memory")
    assert all(weight is before[name] for name, weight in ours.named_parameters())


def test_only_floats_are_cast() -> None:
    mixed = {"audio_BS": torch.ones(1, 3), "tokens_BL": torch.ones(1, 3, dtype=torch.int64)}
    cast = cast_floats(mixed, dtype=torch.bfloat16)
    assert (cast["audio_BS"].dtype, cast["tokens_BL"].dtype) == (torch.bfloat16, torch.int64)

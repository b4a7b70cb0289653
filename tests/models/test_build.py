from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rsc.models.build import Model, build_model, initialise
from rsc.models.config import ModelConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.models.placement import Role
from rsc.models.trunk import rotary_tables


def test_same_seed_same_weights_other_seed_other_weights(config: ModelConfig) -> None:
    first, again, other = (build_model(config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_first_value_does_not_depend_on_what_else_is_there(config: ModelConfig) -> None:
    """A pipeline stage, built on meta and emptied of foreign blocks, starts from the same numbers."""
    whole = build_model(config, seed=7)
    stage = build_model(config, device="meta")
    stage.stems = None
    stage.trunk.blocks.pop("0")
    stage.to_empty(device="cpu")
    initialise(stage, seed=7)
    for name, value in stage.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_first_loss_is_that_of_guessing(model: Model, batch: dict[str, torch.Tensor]) -> None:
    out = model(batch)
    assert out["count"] == 48
    assert (out["total"].detach() / out["count"]).item() == pytest.approx(math.log(257), abs=0.1)


def test_three_wants_agree(model: Model, batch: dict[str, torch.Tensor]) -> None:
    logits = model(batch, Want.LOGITS)["logits"]
    losses = F.cross_entropy(logits.transpose(1, 2), batch["targets_BL"], reduction="none")
    torch.testing.assert_close(model(batch, Want.ITEM_LOSSES)["losses"], losses)
    torch.testing.assert_close(model(batch)["total"], losses.sum())
    assert (logits[..., 257:] == float("-inf")).all(), "padding rows are never predicted"


def test_stages_in_a_row_equal_the_model(
    model: Model, batch: dict[str, torch.Tensor], config: ModelConfig
) -> None:
    first, second = build_model(config, seed=1), build_model(config, seed=1)
    first.trunk.blocks.pop("1")
    first.trunk.norm = None
    first.head = None
    second.stems = None
    second.trunk.blocks.pop("0")
    hidden = first.run(first.embed(batch), batch)
    out = second.answer(second.run(hidden, batch), batch, Want.LOSS)
    assert torch.equal(out["total"], model(batch)["total"])


def test_placement_names_exist_and_cover_every_parameter(model: Model) -> None:
    plan = model.placement_plan()
    modules = dict(model.named_modules())
    assert set(plan.roles) <= set(modules)
    weighted = {Role.VOCABULARY_IN, Role.COLUMNS, Role.ROWS, Role.NORM, Role.VOCABULARY_OUT}
    covered = {f"{name}.weight" for name, role in plan.roles.items() if role in weighted}
    assert covered == {name for name, _ in model.named_parameters()}
    staged = [name for stage in plan.stages for name in stage]
    assert all(name in modules for name in staged)
    assert all(any(f"{p}.".startswith(f"{name}.") for name in staged) for p, _ in model.named_parameters())


def test_column_split_keeps_whole_groups(model: Model, batch: dict[str, torch.Tensor]) -> None:
    """Half of the rows of qkv and half of the columns of out are half of the heads, exactly."""
    attention = model.trunk.blocks["0"].attention
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    rotary = rotary_tables(torch.arange(5), config=model.config.trunk)
    whole = attention(x, rotary, None)
    qkv, out = attention.qkv.weight.detach(), attention.out.weight.detach()
    parts = torch.zeros_like(whole)
    for rank in range(2):
        attention.qkv.weight = torch.nn.Parameter(qkv.chunk(2, dim=0)[rank])
        attention.out.weight = torch.nn.Parameter(out.chunk(2, dim=1)[rank])
        parts += attention(x, rotary, None)
    torch.testing.assert_close(parts, whole)


def test_the_embedding_starts_as_wide_as_the_recipe_says() -> None:
    trunk = TrunkConfig(width=64, num_layers=1, num_heads=1, mlp_width=8)
    for std in (0.02, 0.2):
        model = build_model(ModelConfig(trunk=trunk, text=TextConfig(initial_std=std)), seed=0)
        spread = {name: float(p.detach().std()) for name, p in model.named_parameters()}
        assert spread["stems.text.embedding.weight"] == pytest.approx(std, rel=0.05)
        assert spread["trunk.blocks.0.attention.qkv.weight"] == pytest.approx(0.02, rel=0.05)

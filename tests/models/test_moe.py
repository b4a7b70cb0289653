from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig, MoeConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.models.moe import MoE, Router, balance_experts, forget_loads


def moe(**changes: object) -> MoE:
    fields = {"num_experts": 4, "top_k": 2, "expert_width": 6, "num_shared": 1} | changes
    layer = MoE(MoeConfig.model_validate(fields), width=8)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return layer


@pytest.fixture
def moe_model() -> Model:
    experts = MoeConfig(
        num_experts=4, top_k=2, expert_width=16, num_shared=1, first_layer=1, balance_rate=0.01
    )
    trunk = TrunkConfig(width=16, num_layers=2, num_heads=2, mlp_width=16, moe=experts)
    return build_model(ModelConfig(trunk=trunk, text=TextConfig()), seed=0)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalise", [True, False])
def test_equals_the_sum_over_chosen_experts_written_out(scoring: str, normalise: bool) -> None:
    layer = moe(scoring=scoring, normalise=normalise)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    ours = layer(x)
    for b, l in [(0, 0), (1, 4), (0, 3)]:  # noqa: E741
        token = x[b, l]
        logits = layer.router.weight @ token
        scores = logits.softmax(-1) if scoring == "softmax" else logits.sigmoid()
        best = scores.topk(2)
        weights = best.values / best.values.sum() if normalise else best.values
        experts = layer.experts
        expected = layer.shared(token)  # type: ignore[misc]
        for weight, number in zip(weights, best.indices, strict=True):
            inner = F.silu(experts.gate[number] @ token) * (experts.up[number] @ token)
            expected = expected + weight * (experts.down[number] @ inner)
        torch.testing.assert_close(ours[b, l], expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_router_and_every_used_expert() -> None:
    layer = moe()
    x = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert layer.router.weight.grad is not None
    assert layer.router.weight.grad.abs().sum() > 0
    used = layer.router.load > 0
    assert layer.experts.down.grad is not None
    assert torch.equal(layer.experts.down.grad.abs().sum((1, 2)) > 0, used)


def test_no_token_is_dropped_even_when_all_want_one_expert() -> None:
    layer = moe(top_k=1, num_shared=0)
    with torch.no_grad():
        layer.router.bias += torch.tensor([0.0, 0.0, 9.0, 0.0])
    x = torch.randn(1, 50, 8)
    out = layer(x)
    assert layer.router.load.tolist() == [0, 0, 50, 0]
    assert (out.abs().sum(-1) > 0).all()


def test_bias_moves_the_choice_but_not_the_weights() -> None:
    router = Router(MoeConfig(num_experts=3, top_k=1, expert_width=1, normalise=False), width=2)
    torch.nn.init.constant_(router.weight, 0.0)
    router.bias += torch.tensor([0.0, 1.0, 0.0])
    weights, chosen = router(torch.ones(4, 2))
    assert chosen.flatten().tolist() == [1] * 4
    torch.testing.assert_close(weights, torch.full((4, 1), 1 / 3))


def test_balancing_evens_the_load() -> None:
    """Every token likes expert 0 best; the bias moves until the load is nearly even."""
    layer = moe(balance_rate=0.003)
    with torch.no_grad():
        layer.router.weight.mul_(0.2)
    x = torch.randn(64, 40, 8, generator=torch.Generator().manual_seed(0)) + layer.router.weight[0] * 4
    worst = []
    for _ in range(200):
        layer.router(x.flatten(0, 1))
        worst.append(balance_experts(layer, add_over_ranks=lambda _: None))
    assert worst[0] is not None
    assert worst[-1] is not None
    assert worst[-1] < 1.1 < 1.5 < worst[0]
    assert not layer.router.load.any(), "counts start again after each step"


def test_plain_models_have_nothing_to_balance(model: Model) -> None:
    assert balance_experts(model, add_over_ranks=lambda _: None) is None


def test_evaluation_counts_nothing(moe_model: Model) -> None:
    moe_model.eval()
    moe_model({"tokens_BL": torch.zeros(1, 4, dtype=torch.int64)}, Want.LOGITS)
    assert not moe_model.trunk.blocks["1"].mlp.router.load.any()


def test_padding_counts_nothing(moe_model: Model) -> None:
    x_BLD = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    documents_BL = torch.tensor([[0, 0, 0, -1, -1], [0, 1, 1, 2, -1]])
    router = moe_model.trunk.blocks["1"].mlp.router
    moe_model.trunk(x_BLD, document_ids_BL=documents_BL)
    load = router.load.clone()
    assert load.sum() == 7 * 2
    x_BLD[documents_BL < 0] *= -50.0
    router.load.zero_()
    moe_model.trunk(x_BLD, document_ids_BL=documents_BL)
    assert torch.equal(router.load, load)


def test_more_choices_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="top_k 5 is more than num_experts 4"):
        MoeConfig(num_experts=4, top_k=5, expert_width=1)


def test_the_move_is_made_from_the_load_of_all_ranks(moe_model: Model) -> None:
    """Here expert 3 had nothing on this rank, but most of everything on the others."""
    router = moe_model.trunk.blocks["1"].mlp.router
    router.load.copy_(torch.tensor([5.0, 1.0, 2.0, 0.0]))
    worst = balance_experts(moe_model, add_over_ranks=lambda load: load.add_(torch.tensor([0.0, 0, 0, 12])))
    torch.testing.assert_close(router.bias, torch.tensor([0.0, 0.01, 0.01, -0.01]))
    assert worst == pytest.approx(12 / 5)


def test_a_batch_that_is_left_out_says_nothing_about_the_next_balance(moe_model: Model) -> None:
    tokens = torch.arange(24).reshape(2, 12)
    moe_model.train()
    moe_model({"tokens_BL": tokens}, Want.LOGITS)
    routers = [module for module in moe_model.modules() if isinstance(module, Router)]
    assert all(router.load.any() for router in routers)
    forget_loads(moe_model)
    assert not any(router.load.any() for router in routers)

from __future__ import annotations

import copy

import pytest
import torch

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig, MoeConfig, TextConfig, TrunkConfig
from rsc.recipes.sections import OptimizerConfig
from rsc.train.engine.muon import Muon, direction, is_muon_weight, orthogonalise
from rsc.train.engine.optimizers import build_optimizer


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8), (3, 8, 16)])
def test_all_directions_come_out_alike(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.linalg.svdvals(matrix).max() / torch.linalg.svdvals(matrix).min() > 1.5


def test_directions_are_kept() -> None:
    """The orthogonal factor of U S V^T is U V^T."""
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix)
    found = orthogonalise(matrix)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ vh).flatten(), dim=0) > 0.95


def test_matrices_of_one_shape_move_as_each_alone() -> None:
    """They are multiplied as one batch; each keeps its own update, whatever stands between them."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 16), (8, 32), (16, 16), (32, 8), (8, 32), (300, 300), (300, 300)]
    values = [torch.randn(*shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(*shape, generator=generator) for shape in shapes]

    def moved(chosen: list[int]) -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(values[n].clone()) for n in chosen]
        for weight, n in zip(weights, chosen, strict=True):
            weight.grad = gradients[n].clone()
        Muon([{"params": weights, "rule": "muon", "momentum": 0.9, "lr": 0.1, "weight_decay": 0.1}]).step()
        return [weight.detach() for weight in weights]

    together = moved(list(range(len(shapes))))
    for n, weight in enumerate(together):
        torch.testing.assert_close(weight, moved([n])[0], rtol=0, atol=1e-3)


@pytest.fixture
def model() -> Model:
    moe = MoeConfig(num_experts=2, top_k=1, expert_width=8, first_layer=1)
    trunk = TrunkConfig(width=16, num_layers=2, num_heads=2, mlp_width=24, moe=moe)
    return build_model(ModelConfig(trunk=trunk, text=TextConfig()), seed=0)


def test_which_weights_it_takes(model: Model) -> None:
    taken = {
        name.removeprefix("trunk.blocks.") for name, p in model.named_parameters() if is_muon_weight(name, p)
    }
    attention = {f"{layer}.attention.{part}.weight" for layer in (0, 1) for part in ("qkv", "out")}
    plain = {f"0.mlp.{part}.weight" for part in ("gate", "up", "down")}
    assert taken == attention | plain | {f"1.mlp.experts.{part}" for part in ("gate", "up", "down")}


def test_a_filter_of_a_convolution_is_a_row() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert is_muon_weight("stems.image.body.layers.0.conv.weight", weight)
    assert not is_muon_weight("stems.audio.near.conv.weight", torch.nn.Parameter(weight[..., 0].detach()))
    weight.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    before, wanted = weight.detach().clone(), orthogonalise(weight.grad.flatten(1))
    group = {"params": [weight], "rule": "muon", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    Muon([group]).step()
    torch.testing.assert_close((before - weight).flatten(1), 0.5 * wanted)


def test_the_rest_moves_as_adamw_moves_it(model: Model) -> None:
    twin = copy.deepcopy(model)
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    for name, each in (("muon", model), ("adamw", twin)):
        optimizer = build_optimizer(each, config=OptimizerConfig.model_validate({"name": name}))
        for _ in range(3):
            optimizer.zero_grad()
            torch.manual_seed(0)
            each.embed({"tokens_BL": tokens}).square().sum().backward()
            optimizer.step()
    ours, theirs = model.state_dict(), twin.state_dict()
    name = "stems.text.embedding.weight"
    torch.testing.assert_close(ours[name], theirs[name])


def test_state_continues_where_it_stopped(model: Model) -> None:
    config = OptimizerConfig(name="muon", muon_learning_rate=0.02)
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:]}

    def steps(each: Model, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            each(batch)["total"].backward()
            optimizer.step()

    first = build_optimizer(model, config=config)
    steps(model, first, 2)
    twin = copy.deepcopy(model)
    second = build_optimizer(twin, config=config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(model, first, 2)
    steps(twin, second, 2)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_momentum_is_the_setting_and_looks_ahead() -> None:
    """Nesterov's: the step is along g + mu m, where m = mu m + g (Jordan et al. 2024, Muon)."""
    layer = torch.nn.ModuleDict({"trunk": torch.nn.ModuleDict({"blocks": torch.nn.Linear(6, 6, bias=False)})})
    weight = next(layer.parameters())
    settings = {"name": "muon", "muon_momentum": 0.3, "muon_learning_rate": 0.5, "weight_decay": 0.0}
    optimizer = build_optimizer(layer, config=OptimizerConfig.model_validate(settings))
    first, second = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    weight.grad = first.clone()
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = second.clone()
    optimizer.step()
    ahead = second + 0.3 * (0.3 * first + second)
    torch.testing.assert_close((before - weight).detach(), 0.5 * orthogonalise(ahead))


def test_queries_keys_and_values_move_each_by_itself() -> None:
    """Two groups of two query heads, a key and a value head of 4 features: rows q q k v q q k v."""
    fused = torch.randn(3, 32, 12, generator=torch.Generator().manual_seed(0))
    found = direction(fused, heads=(2, 4), dtype=torch.float32)
    queries = [*range(8), *range(16, 24)]
    keys, values = [*range(8, 12), *range(24, 28)], [*range(12, 16), *range(28, 32)]
    for role in (queries, keys, values):
        wanted = orthogonalise(fused[:, role], dtype=torch.float32) * max(1, len(role) / 12) ** 0.5
        torch.testing.assert_close(found[:, role], wanted, rtol=0, atol=1e-5)


def test_the_optimiser_knows_which_rows_are_fused(model: Model) -> None:
    groups = build_optimizer(model, config=OptimizerConfig(name="muon")).param_groups
    fused = [group for group in groups if group.get("heads")]
    assert [group["heads"] for group in fused] == [(1, 8)]
    wanted = {id(p) for name, p in model.named_parameters() if name.endswith("qkv.weight")}
    assert {id(p) for p in fused[0]["params"]} == wanted


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_gradients_are_divided_by_their_scale(model: Model, name: str) -> None:
    """As torch's fused optimisers do with `grad_scale`: twice, so that what they remember is divided too."""
    generator = torch.Generator().manual_seed(0)
    twin = copy.deepcopy(model)
    config = OptimizerConfig.model_validate({"name": name})
    plain, scaled = (build_optimizer(each, config=config, dtype=torch.float32) for each in (model, twin))
    for divisor in (8.0, 3.0):
        scaled.grad_scale = torch.tensor(divisor)  # type: ignore[attr-defined]
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator)
            theirs.grad = ours.grad * divisor
        plain.step()
        scaled.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

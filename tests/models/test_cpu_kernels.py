"""The CPU's own passes equal torch's operators, forward and backward, in every shape that takes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rsc.models import cpu_kernels
from rsc.models.config import TrunkConfig
from rsc.models.trunk import Attention, AttentionCore, document_mask, rotary_tables


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 8), (2, 3, 8), (5, 4, 3, 8)])
def test_rms_norm_equals_torch(shape: tuple[int, ...]) -> None:
    x, weight, grad = noise(*shape, seed=0), noise(8, seed=1), noise(*shape, seed=2)
    x.requires_grad_()
    weight.requires_grad_()
    ours = cpu_kernels.RmsNorm.apply(x, weight, 1e-5)
    theirs = F.rms_norm(x, (8,), weight, 1e-5)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad)
    )


def test_rms_norm_in_bf16_is_as_near_to_the_truth_as_torch() -> None:
    x, weight = noise(64, 256, seed=0), 1 + 0.1 * noise(256, seed=1)
    truth = F.rms_norm(x, (256,), weight, 1e-5)
    ours = cpu_kernels.RmsNorm.apply(x.bfloat16(), weight.bfloat16(), 1e-5)
    theirs = F.rms_norm(x.bfloat16(), (256,), weight.bfloat16(), 1e-5)
    assert (ours.float() - truth).pow(2).mean() < 2 * (theirs.float() - truth).pow(2).mean()


class OtherCore(AttentionCore):
    """Not the plain core, so that attention takes the general way."""


def attention(*, heads: int, kv_heads: int, causal: bool) -> Attention:
    layer = Attention(
        TrunkConfig(
            width=24,
            num_layers=1,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_width=6,
            mlp_width=1,
            causal=causal,
        )
    )
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = noise(*parameter.shape, seed=number) * 0.3
    return layer


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("kind", ["causal", "both ways", "causal documents", "padded"])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 20])
def test_attention_equals_torch(
    heads: int, kv_heads: int, kind: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kernels, "QUERY_ROWS", 8)
    causal = kind.startswith("causal")
    layer = attention(heads=heads, kv_heads=kv_heads, causal=causal)
    ids = torch.arange(length).div(5, rounding_mode="floor").expand(2, -1).clone()
    ids[1, -1] = -1 if kind == "padded" else ids[1, -1]
    mask = document_mask(ids, causal=causal) if kind in ("causal documents", "padded") else None
    config = TrunkConfig(width=24, num_layers=1, num_heads=1, head_width=6, mlp_width=1)
    rotary = rotary_tables(torch.arange(length), config=config)
    x, grad = noise(2, length, 24, seed=5).requires_grad_(), noise(2, length, 24, seed=6)
    wanted = (x, *layer.parameters())
    ours = layer(x, rotary, mask)
    our_gradients = torch.autograd.grad(ours, wanted, grad)
    layer.core = OtherCore()
    theirs = layer(x, rotary, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_gradients, torch.autograd.grad(theirs, wanted, grad), rtol=1e-4, atol=1e-4)


def test_positions_that_differ_by_sample() -> None:
    layer = attention(heads=4, kv_heads=2, causal=True)
    config = TrunkConfig(width=24, num_layers=1, num_heads=1, head_width=6, mlp_width=1)
    rotary = rotary_tables(torch.tensor([[0, 1, 2], [7, 9, 30]]), config=config)
    x = noise(2, 3, 24, seed=5)
    ours = layer(x, rotary, None)
    layer.core = OtherCore()
    torch.testing.assert_close(ours, layer(x, rotary, None), rtol=1e-4, atol=1e-5)


def test_turning_back_undoes_the_turn() -> None:
    config = TrunkConfig(width=8, num_layers=1, num_heads=1, mlp_width=1)
    rotary = rotary_tables(torch.arange(5), config=config)
    tables = cpu_kernels.turning_tables(*rotary, queries=0, dtype=torch.float32)
    x = noise(2, 1, 2, 5, 8, seed=0)
    torch.testing.assert_close(cpu_kernels.turn_back(cpu_kernels.turn(x.clone(), tables), tables), x)


def test_long_sequences_take_the_way_that_keeps_no_scores() -> None:
    assert cpu_kernels.is_worth_it(torch.empty(16, 256, 6, 3, 64, dtype=torch.bfloat16, device="meta"))
    assert not cpu_kernels.is_worth_it(torch.empty(1, 4096, 8, 6, 128, dtype=torch.bfloat16, device="meta"))

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rsc.models import cross_entropy
from rsc.models.cross_entropy import IGNORED, linear_cross_entropy, position_losses


@pytest.fixture(params=[64, 7])
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Positions on the edges of a chunk: 0, 1, chunk - 1, chunk, chunk + 1 are all inside 2 * 64 + 1."""
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda **_: request.param)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(129, 16, generator=generator, dtype=torch.float32).requires_grad_()
    weight = torch.randn(40, 16, generator=generator).requires_grad_()
    targets = torch.randint(0, 37, (129,), generator=generator)
    targets[[0, 63, 64, 128]] = IGNORED
    return {"hidden_ND": hidden, "weight_VD": weight, "targets_N": targets}


def plain(case: dict[str, torch.Tensor], reduction: str) -> torch.Tensor:
    logits = F.linear(case["hidden_ND"], case["weight_VD"])[:, :37]
    return F.cross_entropy(logits, case["targets_N"], ignore_index=IGNORED, reduction=reduction)


def test_loss_and_gradients_equal_the_plain_way(case: dict[str, torch.Tensor]) -> None:
    inputs = [case["hidden_ND"], case["weight_VD"]]
    total, correct = linear_cross_entropy(
        case["hidden_ND"], weight_VD=case["weight_VD"], targets_N=case["targets_N"], vocabulary=37
    )
    expected = plain(case, "sum")
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-4)
    ours = torch.autograd.grad(total * 0.25, inputs)
    theirs = torch.autograd.grad(expected * 0.25, inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    guesses = F.linear(*inputs)[:, :37].argmax(-1)
    assert correct == (guesses == case["targets_N"]).sum()


def test_losses_per_position(case: dict[str, torch.Tensor]) -> None:
    losses = position_losses(
        case["hidden_ND"], weight_VD=case["weight_VD"], targets_N=case["targets_N"], vocabulary=37
    )
    torch.testing.assert_close(losses, plain(case, "none"), rtol=1e-5, atol=1e-5)


def test_nothing_counted_gives_zero_and_no_gradient() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    total, correct = linear_cross_entropy(
        hidden, weight_VD=weight, targets_N=torch.full((3,), IGNORED), vocabulary=8
    )
    total.backward()
    assert total == 0
    assert correct == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_memory_is_a_chunk_of_logits_not_all() -> None:
    """With vocabulary V and N positions, no tensor of N x V elements is ever made."""
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            seen.extend(
                t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor)
            )
            return out

    hidden, weight = torch.randn(512, 8, requires_grad=True), torch.randn(65536, 8, requires_grad=True)
    with Watch():
        linear_cross_entropy(
            hidden, weight_VD=weight, targets_N=torch.zeros(512, dtype=torch.int64), vocabulary=65536
        )[0].backward()
    assert max(seen) == 64 * 65536

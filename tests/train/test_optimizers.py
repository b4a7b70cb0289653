from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rsc.models.config import ImageConfig
from rsc.models.stems import ImageStem
from rsc.recipes.sections import OptimizerConfig
from rsc.train.engine.optimizers import (
    build_optimizer,
    learning_rate_ratio,
    set_learning_rate,
    split_by_decay,
)


def ratios(*, steps: int, **settings: object) -> list[float]:
    config = OptimizerConfig.model_validate(settings)
    return [learning_rate_ratio(step, steps=steps, config=config) for step in range(steps)]


def test_cosine_ends_are_exact() -> None:
    values = ratios(steps=11, schedule="cosine", warmup_steps=0, min_ratio=0.1)
    assert values[0] == 1.0
    assert values[5] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1)


def test_warmup_rises_from_above_zero_to_the_peak() -> None:
    assert ratios(steps=8, schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_wsd_stays_then_falls() -> None:
    values = ratios(steps=10, schedule="wsd", warmup_steps=2, decay_fraction=0.3, min_ratio=0.0)
    assert values[:7] == [0.5, 1, 1, 1, 1, 1, 1]
    assert values[7:] == pytest.approx([2 / 3, 1 / 3, 0.0])


@given(
    steps=st.integers(1, 60),
    schedule=st.sampled_from(["cosine", "wsd", "constant"]),
    warmup_steps=st.integers(0, 80),
    min_ratio=st.floats(0, 1),
    decay_fraction=st.floats(0, 1),
)
def test_every_schedule_stays_between_zero_and_one_and_never_rises_after_warmup(
    steps: int, warmup_steps: int, **settings: object
) -> None:
    values = ratios(steps=steps, warmup_steps=warmup_steps, **settings)
    assert all(0 <= value <= 1 for value in values)
    after = values[warmup_steps:]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(after))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


def test_only_matrices_decay() -> None:
    model = Tiny()
    decayed, plain = split_by_decay(model)
    assert [id(p) for p in decayed] == [id(model.linear.weight)]
    assert len(plain) == 4


def test_first_adamw_step_is_the_formula() -> None:
    """Step 1 of Adam moves by lr * g / (|g| + eps) whatever the betas; decay shrinks by lr * wd first."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = OptimizerConfig(learning_rate=0.5, weight_decay=0.1)
    optimizer = build_optimizer(model, config=config)
    assert set_learning_rate(optimizer, step=0, steps=10, config=config) == 1.0
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    torch.testing.assert_close(model.weight.data, torch.tensor([[2.0 * (1 - 0.05) - 0.5]]))


def test_later_adamw_steps_remember_by_the_betas() -> None:
    """Kingma and Ba 2015, arXiv:1412.6980, algorithm 1, at step 2 of gradients 3 and -1."""
    beta1, beta2 = 0.7, 0.6
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = OptimizerConfig(learning_rate=0.5, weight_decay=0.0, beta1=beta1, beta2=beta2)
    optimizer = build_optimizer(model, config=config)
    mean = square = 0.0
    expected = 2.0
    for step, gradient in enumerate((3.0, -1.0), start=1):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        expected -= 0.5 * (mean / (1 - beta1**step)) / (square / (1 - beta2**step)) ** 0.5
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_learnt_positions_do_not_decay() -> None:
    stem = ImageStem(ImageConfig(height=8, width=8, channels=1, patch=4), width=8)
    decayed, plain = split_by_decay(stem)
    assert id(stem.places) in map(id, plain)
    assert id(stem.places) not in map(id, decayed)

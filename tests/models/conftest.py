from __future__ import annotations

import pytest
import torch

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig, TextConfig, TrunkConfig


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config() -> ModelConfig:
    trunk = TrunkConfig(width=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_width=48)
    return ModelConfig(trunk=trunk, text=TextConfig(pad_to=16))


@pytest.fixture
def model(config: ModelConfig) -> Model:
    return build_model(config, seed=1)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 257, (2, 25), generator=generator)
    return {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:].clone()}

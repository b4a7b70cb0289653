"""Parameters and FLOPs from settings against modules that are built and products that really run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rsc.layers import recipe_names
from rsc.models.build import build_model, positions_by_stem
from rsc.models.config import ModelConfig
from rsc.models.counts import count_units, model_flops
from rsc.models.heads import Want
from rsc.models.stems import log_mel
from rsc.recipes.recipe import load_recipe

B = 2
CLASSES = {"kind": "classes", "labels": ("a", "b", "c")}
AUDIO = {"sample_rate": 1000, "window_ms": 16, "hop_ms": 10, "num_mels": 8, "stack": 4}
MOE = {"num_experts": 4, "top_k": 2, "expert_width": 32, "num_shared": 1, "first_layer": 1}
TOKENS = torch.tensor(list(b"the quick brown fox jumps over a lazy dog, twice " * B))
INPUTS = {
    "tokens_BL": TOKENS.view(B, -1),
    "targets_BL": TOKENS.view(B, -1),
    "text_length_B": torch.full((B,), len(TOKENS) // B),
    "image_BHWC": torch.zeros(B, 16, 16, 3, dtype=torch.uint8),
    "audio_BS": torch.zeros(B, 2000),
    "audio_length_B": torch.full((B,), 2000),
    "label_B": torch.zeros(B, dtype=torch.int64),
    "symbols_BU": torch.ones(B, 3, dtype=torch.int64),
    "symbol_count_B": torch.full((B,), 3),
}
CASES: dict[str, dict[str, Any]] = {
    "text": {"text": {}, "head": {"kind": "masked_token"}},
    "experts": {"text": {}, "head": {"kind": "masked_token"}, "moe": MOE},
    "n-grams": {"text": {"ngrams": [2, 3], "ngram_rows": 64, "words": 1}, "head": CLASSES},
    "words": {"text": {"positions": "words", "ngrams": [2], "ngram_rows": 64}, "head": CLASSES},
    "patches": {"image": {"height": 16, "width": 16}, "head": CLASSES},
    "convolutions": {
        "image": {"height": 16, "width": 16, "style": "conv", "conv_width": 16, "patch": 8},
        "head": CLASSES,
    },
    "whole sides": {
        "image": {"height": 16, "width": 16, "style": "conv", "conv_width": 8, "patch": 1},
        "head": CLASSES,
    },
    "sound": {"audio": AUDIO, "head": CLASSES},
    "symbols": {"audio": AUDIO, "head": {**CLASSES, "kind": "ctc", "unit": "characters"}},
    "pairs": {
        "text": {},
        "image": {"height": 16, "width": 16},
        "head": {"kind": "contrastive", "projection": 16},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_flops_are_those_of_the_products_that_run(case: str) -> None:
    """Attention over the square is 12 L H E a position and block of it; the CPU's own attention skips what
    lies ahead, so models that look both ways are counted."""
    config = _config(case)
    model = build_model(config)
    with FlopCounterMode(display=False) as spectrum:
        if config.audio is not None:
            log_mel(INPUTS["audio_BS"], config=config.audio)
    with FlopCounterMode(display=False) as counter:
        model(INPUTS, Want.LOSS)["total"].backward()
    counted = counter.get_total_flops() - spectrum.get_total_flops()
    positions = positions_by_stem(INPUTS, config=config)
    assert model_flops(config, rows=B, positions=positions) == pytest.approx(counted, rel=0.02)


def _config(case: str) -> ModelConfig:
    settings = dict(CASES[case])
    trunk = {"width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 96}
    trunk |= {"causal": False, "moe": settings.pop("moe", None)}
    return ModelConfig.model_validate({"trunk": trunk, **settings})


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_has_the_parameters_that_are_counted(name: str) -> None:
    config = load_recipe(name, overrides=["data.name=none"]).recipe.model
    built = sum(parameter.numel() for parameter in build_model(config, device="meta").parameters())
    assert count_units(config).total == built


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_stem_and_head_has_the_parameters_that_are_counted(name: str) -> None:
    config = _config(name)
    built = sum(parameter.numel() for parameter in build_model(config, device="meta").parameters())
    assert count_units(config).total == built

from __future__ import annotations

import torch

from rsc.train.precision import MIN_SPEEDUP, choose_precision, decide


def test_rule_is_the_measured_ratio() -> None:
    assert decide(fp32_gflops=300, bf16_gflops=3000).name == "bf16"
    assert decide(fp32_gflops=100, bf16_gflops=100 * MIN_SPEEDUP).name == "bf16"
    assert decide(fp32_gflops=100, bf16_gflops=149).name == "fp32"


def test_reason_holds_the_figures() -> None:
    assert decide(fp32_gflops=300, bf16_gflops=3000).reason.startswith(
        "bf16 3,000 GFLOP/s against fp32 300 (10.0x"
    )


def test_what_the_recipe_says_wins() -> None:
    chosen = choose_precision("fp32")
    assert (chosen.name, chosen.dtype, chosen.reason) == ("fp32", torch.float32, "set in the recipe")


def test_auto_measures_and_says_so() -> None:
    chosen = choose_precision("auto")
    assert chosen.name in ("fp32", "bf16")
    assert "GFLOP/s" in chosen.reason

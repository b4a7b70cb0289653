from __future__ import annotations

import pytest
import torch

from rsc.cluster.health.cpu import Cpu
from rsc.train.engine.precision import (
    MIN_SPEEDUP,
    Shape,
    choose_precision,
    decide,
    growing_rates,
    matmul_gflops,
    of_cpu,
)


def test_rule_is_the_measured_ratio() -> None:
    assert decide(fp32_gflops=300, bf16_gflops=3000).name == "bf16"
    assert decide(fp32_gflops=100, bf16_gflops=100 * MIN_SPEEDUP).name == "bf16"
    assert decide(fp32_gflops=100, bf16_gflops=149).name == "fp32"


def test_reason_holds_the_figures() -> None:
    assert decide(fp32_gflops=300, bf16_gflops=3000).reason.startswith(
        "bf16 3,000 GFLOP/s against fp32 300 (10.0x"
    )
    assert "(0.02x" in decide(fp32_gflops=100, bf16_gflops=2).reason


def test_what_the_recipe_says_wins() -> None:
    chosen = choose_precision("fp32")
    assert (chosen.name, chosen.dtype, chosen.reason) == ("fp32", torch.float32, "set in the recipe")


def test_auto_gives_a_format_and_a_reason() -> None:
    chosen = choose_precision("auto")
    assert chosen.name in ("fp32", "bf16")
    assert "GFLOP/s" in chosen.reason or "has no bf16" in chosen.reason


def cpu_with(*flags: str, architecture: str = "x86_64") -> Cpu:
    return Cpu("a CPU", cores=2, flags=frozenset(flags), architecture=architecture)


@pytest.mark.parametrize("flags", [("avx2",), ("avx2", "avx512f", "avx512_vnni"), ("avx2", "avx_vnni")])
def test_cpu_without_bf16_is_not_measured(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsc.train.engine.precision.growing_rates", None)
    chosen = of_cpu(cpu_with(*flags))
    assert chosen.name == "fp32"
    assert "without" in chosen.reason


@pytest.mark.parametrize(
    "cpu",
    [cpu_with("amx_bf16"), cpu_with("avx512_bf16"), cpu_with(), cpu_with("asimd", architecture="riscv64")],
    ids=["amx", "avx512_bf16", "features unknown", "architecture unknown"],
)
@pytest.mark.parametrize(("rates", "name"), [([100.0, 149.0], "fp32"), ([100.0, 150.0], "bf16")])
def test_cpu_that_may_have_bf16_is_measured(
    cpu: Cpu, rates: list[float], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsc.train.engine.precision.growing_rates", lambda *_: rates)
    assert of_cpu(cpu).name == name


def test_probe_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    matmul_gflops(torch.float32)
    assert torch.get_num_threads() == before


class FakeCpu:
    """Multiplies at a given rate and notes what it was asked for."""

    def __init__(self, gflops: float, *, first_call_s: float = 0.0) -> None:
        self.shapes: list[Shape] = []
        self.spent_s = 0.0
        self._gflops, self._first_call_s = gflops, first_call_s

    def __call__(self, shape: Shape) -> float:
        rows, inner, columns = shape
        seconds = 2 * rows * inner * columns / 1e9 / self._gflops + (0 if self.shapes else self._first_call_s)
        self.shapes.append(shape)
        self.spent_s += seconds
        return seconds


@pytest.mark.parametrize("bf16_gflops", [0.1, 1.3, 2.5, 70, 600, 3000])
@pytest.mark.parametrize("fp32_gflops", [2, 20, 140, 330])
def test_probe_stays_within_its_budget_on_every_cpu(fp32_gflops: float, bf16_gflops: float) -> None:
    fp32, bf16 = FakeCpu(fp32_gflops), FakeCpu(bf16_gflops)
    rates = growing_rates(fp32, bf16, budget_s=0.07)
    assert rates == pytest.approx([fp32_gflops, bf16_gflops])
    assert fp32.shapes == bf16.shapes
    assert all(cpu.spent_s <= 0.07 for cpu in (fp32, bf16))


def test_emulated_bf16_is_seen_on_tiny_shapes() -> None:
    bf16 = FakeCpu(1.3)
    growing_rates(FakeCpu(140), bf16)
    assert max(bf16.shapes) == (256, 64, 192)


def test_fast_cpu_is_measured_on_a_real_shape() -> None:
    bf16 = FakeCpu(2400)
    growing_rates(FakeCpu(330), bf16)
    assert max(bf16.shapes) == (2048, 512, 1536)


def test_first_call_counts_against_the_budget_and_not_in_the_rate() -> None:
    slow_start = FakeCpu(140, first_call_s=0.06)
    assert growing_rates(slow_start, budget_s=0.07) == pytest.approx([140])
    assert max(slow_start.shapes) < (2048, 512, 1536)

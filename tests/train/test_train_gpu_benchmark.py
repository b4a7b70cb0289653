"""The GPU benchmark's own logic, at toy size on a CPU, so that its first run on a GPU measures the GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "train_gpu.py"


@pytest.mark.slow
def test_every_row_is_there_without_a_gpu() -> None:
    """Uncompiled subjects: the compiler of a CPU is not what is tried here."""
    command = [sys.executable, str(BENCHMARK), "--case", "tiny", "--device", "cpu", "--runs", "1", "--json"]
    done = subprocess.run(
        [*command, "--subject", "bf16_eager"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    told = json.loads(done.stdout)
    assert {row["metric"] for row in told["rows"]} == {"tokens_per_s", "peak_gib", "first_step_s", "loss"}
    assert not told["skipped"]


def test_flops_of_a_token_are_those_of_the_weights_and_of_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    import train_gpu  # type: ignore[import-not-found]

    case = train_gpu.CASES["tiny"]
    config = train_gpu.model_config(case)
    block = 96 * 3 * 96 + 96 * 96 + 3 * 96 * 128 + 2 * 96
    weights = 2 * block + 96 + 320 * 96  # two blocks, the last norm, the head
    assert train_gpu.flops_per_token(config, length=64) == 6 * weights + 6 * 2 * 96 * 64


def test_cards_have_their_own_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    import train_gpu

    assert train_gpu.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert train_gpu.peak_of("NVIDIA H100 PCIe") == 756e12
    assert train_gpu.peak_of("a CPU: the figures mean nothing") is None

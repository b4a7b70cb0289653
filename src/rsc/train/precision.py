"""Which number format to train in on this machine, by measurement, with the reason in words.

The rule: bf16 when its matrix product is at least MIN_SPEEDUP times the float32 one on this CPU, or on
an accelerator that has it. A CPU with AMX gives about 8x, one with AVX512-BF16 about 2x, one without
either less than 1x: there bf16 is emulated and everything would get slower. Norms, softmax, loss and
optimiser state stay float32 whatever is chosen. The choice is made once per run and recorded, because
two formats give two losses.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch

MIN_SPEEDUP = 1.5  # casts and the float32 master copy cost something; below this bf16 wins nothing
_PROBE = (2048, 512, 1536)  # rows x inner x columns of a small model's product: 3.2 GFLOP, a few ms


@dataclass(frozen=True)
class Precision:
    name: Literal["fp32", "bf16", "float8"]
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """What weights and activations are multiplied in; float8 keeps them in bf16 between products."""
        return torch.float32 if self.name == "fp32" else torch.bfloat16


def choose_precision(
    requested: Literal["auto", "fp32", "bf16", "float8"] = "auto", *, device_type: str = "cpu"
) -> Precision:
    """What to train in. `auto` measures on a CPU (about 50 ms) and asks the driver on CUDA."""
    if requested != "auto":
        return Precision(requested, "set in the recipe")
    if device_type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(
            "bf16" if has_bf16 else "fp32",
            "the GPU's tensor cores " + ("have" if has_bf16 else "lack") + " bf16",
        )
    return decide(fp32_gflops=matmul_gflops(torch.float32), bf16_gflops=matmul_gflops(torch.bfloat16))


def decide(*, fp32_gflops: float, bf16_gflops: float) -> Precision:
    """The rule, from two measured rates."""
    speedup = bf16_gflops / fp32_gflops
    rates = f"bf16 {bf16_gflops:,.0f} GFLOP/s against fp32 {fp32_gflops:,.0f}"
    facts = f"{rates} ({speedup:.1f}x; rule: {MIN_SPEEDUP}x)"
    return Precision("bf16" if speedup >= MIN_SPEEDUP else "fp32", facts)


def matmul_gflops(dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Median rate of one matrix product on this CPU with the current number of threads."""
    rows, inner, columns = _PROBE
    left = torch.ones(rows, inner, dtype=dtype)
    right = torch.ones(inner, columns, dtype=dtype)
    torch.mm(left, right)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / statistics.median(seconds) / 1e9

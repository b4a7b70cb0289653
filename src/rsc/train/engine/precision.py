"""Which number format to train in on this machine, with the reason in words.

The rule: bf16 when its matrix product is at least MIN_SPEEDUP times the float32 one on this CPU, or on
an accelerator that has it. A CPU with AMX gives about 8x, one with AVX512-BF16 about 2x. One without either
emulates it, at 0.02x: where the kernel lists the CPU's features and bf16 is not among them nothing is
measured, elsewhere the shapes grow only while they fit a budget of time. Norms, softmax, loss and optimiser
state stay float32 whatever is chosen. The choice is made once per run and recorded, because two formats give
two losses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from rsc.cluster.health.cpu import Cpu, this_cpu

MIN_SPEEDUP = 1.5  # casts and the float32 master copy cost something; below this bf16 wins nothing
_SMALLEST = (128, 32, 96)  # rows x inner x columns: 0.8 MFLOP, 1 ms where bf16 is emulated
_SCALES = (1, 2, 4, 8, 16)  # the last is a small model's product, 3.2 GFLOP: 40 ms on one core with AVX2
_RUNS = 3  # of each shape; the best counts, so that the set-up of the first call does not
_BUDGET_S = 0.07  # for each format

Shape = tuple[int, int, int]
Product = Callable[[Shape], float]
"""Multiplies matrices of one shape and returns the seconds that it took."""


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
    """What to train in. `auto` looks at a CPU's features and measures (below 0.2 s), and asks the driver on
    CUDA."""
    if requested != "auto":
        return Precision(requested, "set in the recipe")
    if device_type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(
            "bf16" if has_bf16 else "fp32",
            "the GPU's tensor cores " + ("have" if has_bf16 else "lack") + " bf16",
        )
    return of_cpu(this_cpu())


def of_cpu(cpu: Cpu) -> Precision:
    if cpu.emulates_bf16:
        return Precision("fp32", f"this CPU has no bf16 ({cpu.model}, without {', '.join(cpu.lacks)})")
    with one_thread():
        fp32, bf16 = growing_rates(cpu_product(torch.float32), cpu_product(torch.bfloat16))
    return decide(fp32_gflops=fp32, bf16_gflops=bf16)


def decide(*, fp32_gflops: float, bf16_gflops: float) -> Precision:
    """The rule, from two measured rates."""
    speedup = bf16_gflops / fp32_gflops
    rates = f"bf16 {bf16_gflops:,.0f} GFLOP/s against fp32 {fp32_gflops:,.0f}"
    facts = f"{rates} ({speedup:.{1 if speedup >= 1 else 2}f}x; rule: {MIN_SPEEDUP}x)"
    return Precision("bf16" if speedup >= MIN_SPEEDUP else "fp32", facts)


def matmul_gflops(dtype: torch.dtype) -> float:
    """Rate of matrix products on this CPU, one on each of the current number of threads."""
    num_threads = torch.get_num_threads()
    with one_thread():
        return num_threads * growing_rates(cpu_product(dtype))[0]


def growing_rates(*products: Product, budget_s: float = _BUDGET_S) -> list[float]:
    """GFLOP/s of each product at the largest shape at which all of them fit the budget.

    A shape is measured only if every product is expected to stay within `budget_s` at its rate so far.
    The smallest is always measured.
    """
    rates = [0.0] * len(products)
    left_s = [budget_s] * len(products)
    for scale in _SCALES:
        rows, inner, columns = (scale * size for size in _SMALLEST)
        gflop = 2 * rows * inner * columns / 1e9
        if any(rate and _RUNS * gflop / rate > left for rate, left in zip(rates, left_s, strict=True)):
            break
        for index, product in enumerate(products):
            seconds = [product((rows, inner, columns)) for _ in range(_RUNS)]
            rates[index] = gflop / max(min(seconds), 1e-9)  # a coarse clock may say 0
            left_s[index] -= sum(seconds)
    return rates


@contextmanager
def one_thread() -> Iterator[None]:
    """Several would wait for each other where other processes want the cores too: a product of 1 ms was seen
    to take a second then."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def cpu_product(dtype: torch.dtype) -> Product:
    """Measures the CPU time of the calling thread, which busy neighbours do not add to."""

    def multiply(shape: Shape) -> float:
        rows, inner, columns = shape
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
        start = time.thread_time()
        torch.mm(left, right)
        return time.thread_time() - start

    return multiply

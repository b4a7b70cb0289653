"""Rates of products, attention and copies on one device, each the best of a few repeats."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192, 16384)}
_QUICK_SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 8192)}


def matmul_sweep(device: torch.device, *, quick: bool) -> dict[int, float]:
    """FLOP/s by side of square products: bfloat16 on a GPU, float32 on a CPU, as training here uses them."""
    sizes = (_QUICK_SIZES if quick else _SIZES)[device.type]
    found = {}
    for size in sizes:
        one, two = (torch.randn(size, size, device=device, dtype=_dtype(device)) for _ in range(2))
        found[size] = 2 * size**3 / best_s(lambda a=one, b=two: a @ b, device, quick=quick)  # type: ignore[misc]
    return found


def attention_rate(device: torch.device, *, quick: bool) -> float:
    """FLOP/s of causal attention, forward; half of the square counts."""
    heads, length = (4, 512) if device.type == "cpu" else (32, 4096)
    query = torch.randn(1, heads, length, 64, device=device, dtype=_dtype(device))
    attend = torch.nn.functional.scaled_dot_product_attention
    seconds = best_s(lambda: attend(query, query, query, is_causal=True), device, quick=quick)
    return 0.5 * 4 * heads * length**2 * 64 / seconds


def copy_rate(device: torch.device, *, quick: bool) -> float:
    """B/s of memory, read and written, by a copy that no cache holds."""
    size = (64 << 20) if device.type == "cpu" else (1 << 30)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_s(lambda: target.copy_(source), device, quick=quick)


def best_s(work: Callable[[], object], device: torch.device, *, quick: bool) -> float:
    """Seconds of the fastest repeat, after one that warms up."""
    work()
    _wait(device)
    best, until = float("inf"), time.perf_counter() + (0.2 if quick else 2.0)
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""All-reduce between processes of this machine, by size: gloo over loopback, NCCL between GPUs."""

from __future__ import annotations

import tempfile
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from torch import distributed

_SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)
_WAIT_S = 120.0


def all_reduce_rates(device: torch.device, *, count: int, quick: bool) -> dict[int, float]:
    """B/s of one way by bytes: 2 (n - 1) / n of the size over the time. Empty where the ranks do not meet, as
    on a machine with one GPU."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        context: Any = torch.multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        about = (count, device.type, str(Path(folder) / "meet"), 3 if quick else 20, answers)
        ranks = [context.Process(target=_rank, args=(rank, *about), daemon=True) for rank in range(count)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(_WAIT_S)
        stuck = [rank for rank in ranks if rank.is_alive()]
        for rank in stuck:
            rank.kill()
        return {} if stuck or any(rank.exitcode for rank in ranks) else answers.get()


def _rank(rank: int, count: int, kind: str, meet: str, rounds: int, answers: SimpleQueue[Any]) -> None:
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{meet}", rank=rank, world_size=count)
    if kind == "cuda":
        torch.cuda.set_device(rank)
    found = {size: _rate(size, kind=kind, count=count, rounds=rounds) for size in _SIZES}
    if rank == 0:
        answers.put(found)
    distributed.destroy_process_group()


def _rate(size: int, *, kind: str, count: int, rounds: int) -> float:
    data = torch.ones(size // 4, device=kind)
    best = float("inf")
    for _ in range(rounds + 1):
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(data)
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * (count - 1) / count * size / best

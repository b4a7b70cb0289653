"""The control of benchmarks/recovery.py: a plain FSDP2 loop with torch.save under torchrun, one rank killed.

`torchrun ... recovery_peer.py FOLDER STEPS EVERY KILL_AT`: appends a JSON line with the time of every step
and of the kill to FOLDER/rank<r>.jsonl. Weights and optimiser are saved whole by rank 0, as many do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard

WIDTH = 256


def main(folder: Path, *, steps: int, every: int, kill_at: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layers = [block() for _ in range(6)]
    model = torch.nn.Sequential(*layers)
    for layer in layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    start = load(folder / "state.pt", model, optimizer)
    for step in range(start, steps):
        if step + 1 == kill_at and rank == 1 and not (folder / "killed").exists():
            (folder / "killed").touch()
            tell(folder, rank, kind="kill", step=step + 1)
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.zero_grad()
        model(torch.randn(512, WIDTH)).square().mean().backward()
        optimizer.step()
        tell(folder, rank, kind="step", step=step + 1)
        if (step + 1) % every == 0:
            save(folder / "state.pt", step + 1, model, optimizer)


def block() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.ReLU(), torch.nn.Linear(4 * WIDTH, WIDTH)
    )


def options() -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)


def save(path: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, moments = get_state_dict(model, optimizer, options=options())
    if dist.get_rank() == 0:
        staged = path.with_suffix(".new")
        torch.save({"step": step, "model": weights, "optimizer": moments}, staged)
        staged.replace(path)


def load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from, the same on every rank."""
    found: list[Any] = [torch.load(path) if dist.get_rank() == 0 and path.exists() else None]
    step = [found[0]["step"] if found[0] else 0]
    dist.broadcast_object_list(step, src=0)
    if step[0]:
        state = found[0] or {"model": {}, "optimizer": {}}
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=options(),
        )
    return int(step[0])


def tell(folder: Path, rank: int, **facts: Any) -> None:
    with (folder / f"rank{rank}.jsonl").open("a") as file:
        file.write(json.dumps({"time_s": time.time(), **facts}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), steps=int(sys.argv[2]), every=int(sys.argv[3]), kill_at=int(sys.argv[4]))

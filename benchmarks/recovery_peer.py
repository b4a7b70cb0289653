"""The control of benchmarks/recovery.py: a plain FSDP2 loop with dcp under torchrun, one rank killed.

`torchrun ... recovery_peer.py FOLDER STEPS EVERY KILL_AT`: appends a JSON line with the time of every step
and of the kill to FOLDER/rank<r>.jsonl. `dcp.save` of the sharded state every EVERY steps, as its tutorial
has it: each rank writes its part, and a checkpoint is there when its `.metadata` is.
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
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
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
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(load(folder, model, optimizer), steps):
        if step + 1 == kill_at and rank == 1 and not (folder / "killed").exists():
            (folder / "killed").touch()
            tell(folder, rank, kind="kill", step=step + 1)
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.zero_grad()
        model(torch.randn(512, WIDTH)).square().mean().backward()
        optimizer.step()
        tell(folder, rank, kind="step", step=step + 1)
        if (step + 1) % every == 0:
            dcp.save(state_of(model, optimizer), checkpoint_id=folder / f"step-{step + 1:04d}")
    dist.destroy_process_group()


def block() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.ReLU(), torch.nn.Linear(4 * WIDTH, WIDTH)
    )


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from. Nobody writes while ranks start, so all of them see the same newest one."""
    found = sorted(path.parent for path in folder.glob("step-*/.metadata"))
    if not found:
        return 0
    state = state_of(model, optimizer)
    dcp.load(state, checkpoint_id=found[-1])
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return int(found[-1].name.removeprefix("step-"))


def tell(folder: Path, rank: int, **facts: Any) -> None:
    with (folder / f"rank{rank}.jsonl").open("a") as file:
        file.write(json.dumps({"time_s": time.time(), **facts}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), steps=int(sys.argv[2]), every=int(sys.argv[3]), kill_at=int(sys.argv[4]))

"""`python tests/parallel/measure.py CASES`: what ranks of small real jobs hold and send, beside the dry run.

CASES as in job.py. The answer is {name: {"real": [one per rank], "dry": [one per pipeline rank]}}, sizes in
bytes. Peaks come from the CPU allocator's own records (torch's profiler), not from the process's size.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from job import free_port, global_batch, recipe_of, rows_of
from torch.distributed.tensor import DTensor

from rsc.parallel.mesh import build_mesh
from rsc.plan.dry_run.op_counter import Meter
from rsc.plan.dry_run.recipe_table import dry_run_recipe
from rsc.train.engine.engine import build_engine
from rsc.train.engine.step import Stepper


def rank_main(rank: int, case: dict[str, Any], port: int, answers: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.TCPStore("127.0.0.1", port, case["world"], rank == 0, wait_for_workers=False)
    timeout = timedelta(seconds=300)  # eight ranks may share two busy cores
    dist.init_process_group("gloo", store=store, rank=rank, world_size=case["world"], timeout=timeout)
    Path(answers, f"{rank}.json").write_text(json.dumps(measure(case, rank=rank)))


def measure(case: dict[str, Any], *, rank: int) -> dict[str, Any]:
    """The third step: by then every rank has its optimiser's state and its buffers."""
    recipe = recipe_of(case)
    layout = recipe.layout(world=case["world"])
    mesh = build_mesh(layout, rank=rank, device=torch.device("cpu"), has_experts=bool(case.get("moe")))
    dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    engine = build_engine(recipe, mesh=mesh, dtype=dtype)
    stepper = Stepper(engine, config=recipe.train.optimizer, steps=9)
    part = slice(layout.dp_rank(rank), None, layout.dp)
    batches = [rows_of(global_batch(0, "language"), part)]
    for step in range(2):
        stepper.run(step, batches=batches)
    engine.optimizer.zero_grad()
    meter = Meter(mesh)
    with torch.profiler.profile(profile_memory=True) as profile:
        engine.backward(batches, step=2)
        engine.placed.finish_gradients()
    gradients = [weight.grad for weight in weights_of(engine)]
    with meter.listening():
        engine.optimizer.zero_grad()
        engine.backward(batches, step=2)
    state = [value for state in engine.optimizer.state.values() for value in state.values()]
    return {
        "pp_rank": mesh.place("pp"),
        "parameter_bytes": sizes(weights_of(engine)),
        "gradient_bytes": sizes(gradients),
        "optimizer_bytes": sizes([value for value in state if value.ndim]),
        "passing_bytes": peak(profile) - sizes(gradients),
        "sent_bytes": dict(meter.sent_bytes),
    }


def weights_of(engine: Any) -> list[torch.Tensor]:
    return [parameter for module in engine.placed.modules for parameter in module.parameters()]


def sizes(tensors: list[Any]) -> int:
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def peak(profile: Any) -> int:
    """The most that the allocator had handed out above what it had at the start."""
    results = profile.profiler.kineto_results.events()
    events = sorted((event.start_ns(), event.nbytes()) for event in results if event.name() == "[memory]")
    held = top = 0
    for _, size in events:
        held += size
        top = max(top, held)
    return top


def main(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Real jobs first: a process that has run dry no longer forks well."""
    result = {case["name"]: {"real": run_ranks(case)} for case in cases}
    for case in cases:
        dry = dry_run_recipe(recipe_of(case), world=case["world"]).to_json()
        result[case["name"]]["dry"] = dry["ranks"]
    return result


def run_ranks(case: dict[str, Any]) -> list[dict[str, Any]]:
    with TemporaryDirectory() as answers:
        world = case["world"]
        mp.start_processes(rank_main, args=(case, free_port(), answers), nprocs=world, start_method="fork")
        return [json.loads(Path(answers, f"{rank}.json").read_text()) for rank in range(world)]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

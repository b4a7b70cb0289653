"""One rank, from a forked process to a trained model: group -> key -> data -> model -> state -> loop.

The supervisor forks it with torch already imported, so a start costs tens of milliseconds. What it
shares with its peers is in `RankSpec`, what it trains in `NodeJob`; keys come from the key agent's socket
and are wiped at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch._C._distributed_c10d as c10d
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from rsc.cluster.health.cpu import usable_cores
from rsc.cluster.rendezvous.rank_keys import RankKeys
from rsc.cluster.sandbox import syscalls
from rsc.cluster.supervise.failures import collective_patience_s
from rsc.cluster.supervise.heartbeats import Board
from rsc.cluster.supervise.reports import reserve_error_file, write_error
from rsc.cluster.supervise.spec import Ending, RankSpec
from rsc.cluster.supervise.stack_dumps import answer_dumps
from rsc.durable import replace_file
from rsc.errors import RscError
from rsc.export.settings import is_export
from rsc.parallel.mesh import build_mesh
from rsc.recipes.recipe import Recipe
from rsc.runs.folder import PRECISION
from rsc.runs.node_job import NodeJob
from rsc.train.allocator import keep_freed_memory
from rsc.train.assemble import RankContext, assemble
from rsc.train.batches.key_session import open_keys
from rsc.train.engine.precision import choose_precision
from rsc.train.init_weights import parent_of
from rsc.train.job_store import JobStore


def work(local_rank: int, spec: RankSpec, *, job: NodeJob) -> Ending:
    """Entry of a worker process. Returns how the run ended; a failure leaves logs/rank<r>.error.json."""
    rank = spec.place.first_rank + local_rank
    _settle(rank, spec)
    try:
        return _train(rank, local_rank, spec, job=job)
    except BaseException as error:
        with suppress(OSError):  # a full disk must not change the exit code
            write_error(spec.run, rank=rank, error=error, kind=failure_kind(error))
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(error.exit_code if isinstance(error, RscError) else 1)


def failure_kind(error: BaseException) -> str:
    """The word for it: the same words as in train/faults.py and docs/recovery.md, and `peer` for an echo."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in text:
        return "oom"
    if isinstance(error, RscError):
        return type(error).__name__
    is_collective = isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text
    return "peer" if is_collective else "exception"


def _settle(rank: int, spec: RankSpec) -> None:
    """Make the forked copy of the supervisor a worker: its own log, signals, threads."""
    log = os.open(spec.run / "logs" / f"rank{rank}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the supervisor's stdin, where wishes come
    os.close(nothing)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides; it ends workers with SIGKILL
    if sys.platform == "linux":  # outside a PID namespace nothing else ends it with the supervisor
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    reserve_error_file(spec.run, rank=rank)
    answer_dumps(
        spec.run,
        rank=rank,
        board=Board(spec.board, num_ranks=spec.place.local_world),
        collectives=c10d._dump_fr_trace_json,  # type: ignore[attr-defined]
    )


def _train(rank: int, local_rank: int, spec: RankSpec, *, job: NodeJob) -> Ending:
    recipe = Recipe.model_validate(job.recipe)
    device = _device(local_rank)
    keep_freed_memory()
    torch.set_num_threads(recipe.train.threads or max(1, usable_cores() // spec.place.local_world))
    timeout_s = collective_patience_s(recipe.train, timeout_s=recipe.parallel.timeout_s)
    whole = JobStore(RankKeys(spec.keys, timeout_s=timeout_s))  # lives here: torch keeps no Python object
    store = _join(whole, rank, spec, device=device, timeout_s=timeout_s)
    recipe = with_precision(
        recipe, agreed_precision(recipe, rank=rank, run=spec.run, store=store, device=device)
    )
    layout = recipe.layout(world=spec.place.world)
    has_experts = recipe.model.trunk.moe is not None
    mesh = build_mesh(layout, rank=rank, device=device, has_experts=has_experts)
    parent = parent_of(recipe, run=spec.run)
    asked = None if parent is None or is_export(parent) else parent.name
    with open_keys(Path(job.socket), run=spec.run.name, data=recipe.data, parent=asked) as keys:
        place = RankContext(mesh=mesh, local_rank=local_rank, store=store, spec=spec)
        return assemble(recipe, place=place, keys=keys, job=job).run()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def agreed_precision(recipe: Recipe, *, rank: int, run: Path, store: Store, device: torch.device) -> str:
    """The run's number format: rank 0 measures at the first start and writes it down, everybody follows.

    Two ranks, or two starts, that each measured could disagree on a busy machine.
    """
    note = run / PRECISION
    if rank == 0:
        if not note.exists():
            chosen = choose_precision(recipe.train.precision, device_type=device.type)
            replace_file(note, json.dumps({"precision": chosen.name, "reason": chosen.reason}).encode())
        store.set("precision", json.loads(note.read_text())["precision"])
    return store.get("precision").decode()


def with_precision(recipe: Recipe, name: str) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": name})})


def _join(store: Store, rank: int, spec: RankSpec, *, device: torch.device, timeout_s: float) -> Store:
    """Enter the process group of this start; returns the part of the store that is ours."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", spec.place.interface)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend,
        store=PrefixStore("group", store),
        rank=rank,
        world_size=spec.place.world,
        timeout=timedelta(seconds=timeout_s),
    )
    return PrefixStore("rsc", store)

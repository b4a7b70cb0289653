"""Put one rank's parts together: data, model, optimiser, checkpoint writer, loop. Called once per start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import Store

from rsc.checkpoint.meeting import Meeting
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.snapshot import SnapshotMemory
from rsc.clock import SystemClock
from rsc.events import EventLog
from rsc.parallel.mesh import Mesh
from rsc.store.local import LocalStore
from rsc.train.board import Board
from rsc.train.engine import build_engine
from rsc.train.faults import FaultDisk, FaultInjector
from rsc.train.inputs import open_source
from rsc.train.keys import Keys
from rsc.train.loop import Loop, Progress
from rsc.train.metrics import MetricsFile
from rsc.train.precision import choose_precision
from rsc.train.recipe import Recipe
from rsc.train.restore import Restorer
from rsc.train.step import Stepper
from rsc.train.takeover import inherited_by


@dataclass(frozen=True)
class WorkerSpec:
    """What every rank of one start shares. Crosses the fork (or a pickle, where processes are spawned)."""

    run: Path
    data: Path
    recipe: dict[str, Any]
    attempt: str
    world: int
    local_world: int
    first_rank: int
    master: tuple[str, int]
    board: Path
    socket: Path
    memories: tuple[int, ...] = ()
    """Descriptors of the local ranks' snapshot memory; empty where snapshots are off."""


@dataclass(frozen=True)
class Place:
    """Where this process stands in the job."""

    mesh: Mesh
    local_rank: int
    local_world: int
    store: Store


def assemble(recipe: Recipe, *, place: Place, keys: Keys, spec: WorkerSpec) -> Loop:
    """Everything up to the first step, at the state of the newest good checkpoint."""
    mesh = place.mesh
    clock = SystemClock()
    events = EventLog(spec.run / "events.jsonl", clock=clock)
    board = Board(spec.board, num_ranks=spec.local_world)
    faults = FaultInjector(
        recipe.train.fail_at,
        rank=mesh.rank,
        folder=spec.run / "drill",
        tell=lambda fault: events.append("fault_injected", fault=asdict(fault)),
        stop_is_noted=lambda: board.stop_requested,
    )
    source = open_source(recipe, spec.data, key=keys.data, layout=mesh.layout, rank=mesh.rank)
    precision = choose_precision(recipe.train.precision, device_type=mesh.device.type)  # agreed in worker.py
    inherited = inherited_by(recipe, run=spec.run, key=keys.parent)
    engine = build_engine(recipe, mesh=mesh, dtype=precision.dtype, inherited=inherited)
    folder = LocalStore(spec.run / "checkpoints", disk=FaultDisk(faults))
    progress = Progress()
    memory = SnapshotMemory(spec.memories[place.local_rank]) if spec.memories else None
    restorer = Restorer(
        folder, memory, run=spec.run.name, key=keys.run, mesh=mesh, store=place.store, events=events
    )
    restorer.restore(engine, source=source, progress=progress)
    writer = CheckpointWriter(
        folder,
        run=spec.run.name,
        key=keys.run,
        rank=mesh.rank,
        attempt=spec.attempt,
        meeting=Meeting(place.store, world=spec.world),
        events=events,
        keep=recipe.checkpoint.keep,
        keep_every=recipe.checkpoint.keep_every,
        pinned=mesh.device.type == "cuda",
    )
    return Loop(
        rank=mesh.rank,
        dp_rank=mesh.layout.dp_rank(mesh.rank),
        local_rank=place.local_rank,
        config=recipe.train,
        checkpoint=recipe.checkpoint,
        stepper=Stepper(engine, config=recipe.train.optimizer, steps=recipe.train.steps),
        source=source,
        writer=writer,
        pieces=engine.pieces,
        memory=memory,
        layout=str(mesh.layout),
        board=board,
        metrics=MetricsFile(spec.run / "metrics" / f"rank{mesh.rank}.jsonl", clock=clock),
        faults=faults,
        events=events,
        progress=progress,
    )

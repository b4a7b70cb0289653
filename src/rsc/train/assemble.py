"""Put one rank's parts together: data, model, optimiser, checkpoint writer, loop. Called once per start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch._C._distributed_c10d import Store

from rsc.checkpoint.commit_barrier import Meeting
from rsc.checkpoint.neighbours import Neighbours
from rsc.checkpoint.read_counts import StoreReads
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.snapshot import SnapshotMemory
from rsc.clock import SystemClock
from rsc.cluster.supervise.heartbeats import Board, Phase
from rsc.cluster.supervise.spec import RankSpec
from rsc.events import EventLog
from rsc.models.tokenizer import open_tokenizer
from rsc.parallel.mesh import Mesh
from rsc.recipes.recipe import Recipe
from rsc.runs.node_job import NodeJob
from rsc.runs.worker_events import events_of_workers
from rsc.store.bulk.local import LocalStore
from rsc.store.cache.mover_client import AskedCache, AskedStore, MoverClient
from rsc.store.format.suites import suite_for
from rsc.train.batches.batch_source import BatchSource
from rsc.train.batches.data_counts import count_training_data
from rsc.train.batches.key_session import Keys
from rsc.train.batches.loaders import DataPlace, open_source
from rsc.train.engine.engine import Engine, build_engine
from rsc.train.engine.precision import choose_precision
from rsc.train.engine.step import Stepper
from rsc.train.faults import FaultDisk, FaultInjector
from rsc.train.init_weights import agreed_step, inherited_by
from rsc.train.loop import Loop, TrainProgress
from rsc.train.metrics import MetricsFile
from rsc.train.restore import Restorer
from rsc.train.tensorboard import EventFiles
from rsc.train.utilisation import Gauge, meters_of, peak_of
from rsc.train.validate import Validator, text_bytes


@dataclass(frozen=True)
class RankContext:
    """Where this process stands in the job."""

    mesh: Mesh
    local_rank: int
    store: Store
    """Key-value store of this start."""
    spec: RankSpec


def data_place(job: NodeJob) -> DataPlace:
    """Where this node's data comes from: a folder, or the node's cache behind a mover."""
    if job.cache is None or job.mover is None:
        return DataPlace(Path(job.data))
    client = MoverClient(Path(job.mover))
    return DataPlace(AskedStore(client), AskedCache(Path(job.cache), client=client))


def assemble(recipe: Recipe, *, place: RankContext, keys: Keys, job: NodeJob) -> Loop:
    """Everything up to the first step, at the state of the newest good checkpoint."""
    mesh, spec, data = place.mesh, place.spec, data_place(job)
    clock = SystemClock()
    events = EventLog(events_of_workers(spec.run, node=job.node), clock=clock)
    board = Board(spec.board, num_ranks=spec.place.local_world)
    faults = FaultInjector(
        recipe.train.fail_at,
        rank=mesh.rank,
        folder=spec.run / "drill",
        tell=lambda fault: events.append("fault_injected", fault=asdict(fault)),
        stop_is_noted=lambda: board.stop_requested,
    )

    def source_of(part: Recipe) -> BatchSource:
        return open_source(part, data, keys=keys.data, mesh=mesh)

    def beat() -> None:
        board.beat(place.local_rank, phase=Phase.DATA)

    source = source_of(recipe)
    precision = choose_precision(recipe.train.precision, device_type=mesh.device.type)  # agreed in worker.py
    reads = StoreReads()
    agree = partial(agreed_step, rank=mesh.rank, store=place.store)
    inherited = inherited_by(recipe, run=spec.run, key=keys.parent, reads=reads, agree=agree)
    engine = build_engine(recipe, mesh=mesh, dtype=precision.dtype, inherited=inherited)
    folder = LocalStore(spec.run / "checkpoints", disk=FaultDisk(faults))
    progress = TrainProgress()
    snapshots = _snapshots(place)
    restorer = Restorer(
        folder,
        snapshots,
        run=spec.run.name,
        key=keys.run,
        mesh=mesh,
        store=place.store,
        events=events,
        reads=reads,
    )
    restorer.restore(engine, source=source, progress=progress)
    if progress.step == 0:
        count_training_data(
            engine.placed.modules,
            recipe=recipe,
            data=data,
            keys=keys.data,
            mesh=mesh,
            beat=beat,
        )
    writer = CheckpointWriter(
        folder,
        run=spec.run.name,
        key=keys.run,
        suite=suite_for(job.cipher),
        rank=mesh.rank,
        attempt=spec.attempt,
        meeting=Meeting(place.store, world=spec.place.world),
        events=events,
        keep=recipe.checkpoint.keep,
        keep_every=recipe.checkpoint.keep_every,
        damaged=restorer.damaged,
        pinned=mesh.device.type == "cuda",
    )
    peak = peak_of(mesh.device, dtype=precision.dtype)
    if mesh.rank == 0 and peak is not None:
        events.append("peak", gflops_per_s=round(peak.flops_per_s / 1e9), source=peak.source)
    has_boards = mesh.rank == 0 and recipe.train.tensorboard
    boards = EventFiles(spec.run / "tensorboard") if has_boards else None
    metrics = spec.run / "metrics" / f"rank{mesh.rank}.jsonl"
    return Loop(
        rank=mesh.rank,
        local_rank=place.local_rank,
        config=recipe.train,
        patience=recipe.eval.patience,
        checkpoint=recipe.checkpoint,
        stepper=Stepper(engine, config=recipe.train.optimizer, steps=recipe.train.steps),
        source=source,
        writer=writer,
        pieces=engine.pieces,
        snapshots=snapshots,
        layout=str(mesh.layout),
        board=board,
        metrics=MetricsFile(metrics, clock=clock, events=boards),
        gauge=Gauge(
            device=mesh.device,
            peak=peak,
            layout=mesh.layout,
            meters=meters_of(mesh.device) if place.local_rank == 0 else (),
        ),
        validator=_validator(recipe, engine=engine, source_of=source_of, beat=beat),
        faults=faults,
        events=events,
        progress=progress,
    )


def _snapshots(place: RankContext) -> Neighbours | None:
    """This rank's memory for snapshots, and that for a rank of another node; None where they are off."""
    spec, rank, local_rank = place.spec, place.mesh.rank, place.local_rank
    if not spec.memories:
        return None
    world, carried = spec.place.world, spec.place.carried
    own = SnapshotMemory(spec.memories[local_rank], rank=rank)
    ward = None
    if carried and spec.wards:
        ward = SnapshotMemory(spec.wards[local_rank], rank=(rank - carried) % world)
    return Neighbours(own, ward, carried=carried, rank=rank, world=world)


def _validator(
    recipe: Recipe,
    *,
    engine: Engine,
    source_of: Callable[[Recipe], BatchSource],
    beat: Callable[[], None],
) -> Validator | None:
    """Raises what opening the validation split raises: now, not after `eval.every` steps."""
    if not recipe.eval.every:
        return None
    split = recipe.data.sets[0].model_copy(update={"split": recipe.eval.split})
    held_out = recipe.model_copy(update={"data": split})
    source_of(held_out).close()
    return Validator(
        engine=engine,
        open_source=lambda: source_of(held_out),
        num_batches=recipe.eval.every_batches,
        every=recipe.eval.every,
        size_of=_size_of(recipe),
        beat=beat,
    )


def _size_of(recipe: Recipe) -> Callable[[torch.Tensor], int] | None:
    text = recipe.model.text
    if not recipe.is_packed_language or text is None:
        return None
    return partial(text_bytes, tokenizer=open_tokenizer(text), separator=recipe.data.separator)

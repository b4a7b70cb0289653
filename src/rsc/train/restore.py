"""Bring every rank to the same newest good checkpoint. The step is agreed, never read by each rank alone:
two ranks that look at a folder at different moments may see different newest steps."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from rsc.checkpoint.load import Checkpoint, materialise
from rsc.checkpoint.neighbours import Neighbours
from rsc.checkpoint.read_counts import StoreReads
from rsc.checkpoint.retention import finished, remove_leftovers
from rsc.checkpoint.save import Events
from rsc.checkpoint.shards import model_tensors
from rsc.errors import IntegrityError, ResourceError
from rsc.keys.secret import SecretKey
from rsc.parallel.mesh import Mesh
from rsc.store.bulk.interface import BulkStore
from rsc.train.batches.batch_source import BatchSource
from rsc.train.engine.engine import Engine
from rsc.train.loop import TrainProgress

_HINT = (
    "see checkpoint_damaged in its events; with copies in checkpoint.folder, move the damaged folders out of "
    "the run's checkpoints/, and `rsc runs resume` fetches the newest copy; else start another run"
)


class Restorer:
    def __init__(
        self,
        folder: BulkStore,
        snapshots: Neighbours | None,
        *,
        run: str,
        key: SecretKey,
        mesh: Mesh,
        store: Store,
        events: Events,
        reads: StoreReads,
    ) -> None:
        self._snapshots = snapshots
        self._folder = folder
        self._run = run
        self._key = key
        self._mesh = mesh
        self._store = store
        self._events = events
        self._reads = reads
        self.damaged: list[int] = []
        """Steps that some rank could not read at this start."""

    def restore(self, engine: Engine, *, source: BatchSource, progress: TrainProgress) -> None:
        """Load the newest state that all ranks have: a snapshot in memory if it is newer than every
        checkpoint, else the newest checkpoint that all can read; nothing when there is none yet. Each rank
        tells from where, and what it has read of stored checkpoints for that.

        Raises NoGoodCheckpoint when there are checkpoints and none is good: starting from nothing would
        throw the run away without a word.
        """
        origin = self._load(engine, source=source, progress=progress)
        if self._snapshots is not None:
            self._snapshots.forget_after(progress.step)
        facts = {"rank": self._mesh.rank, "from": origin, "step": progress.step, **self._reads.facts()}
        self._events.append("resumed", **facts)

    def _load(self, engine: Engine, *, source: BatchSource, progress: TrainProgress) -> str:
        """Where the state is from: `snapshot`, `checkpoint`, or `nothing` at the beginning."""
        steps = self._agreed_steps()
        if self._take_snapshot(engine, newest=max(steps, default=0), source=source, progress=progress):
            return "snapshot"
        for step in steps:
            state = self._try(step, engine)
            if state is not None:
                progress.load_state_dict(state["progress"])
                source.load_state_dict(state["loader"])
                return "checkpoint"
        if steps:
            raise NoGoodCheckpoint(
                f"none of the {len(steps)} checkpoints of {self._run} can be read",
                hint=_HINT,
                outcome="frame",
            )
        return "nothing"

    def _agreed_steps(self) -> list[int]:
        """Newest first, as rank 0 sees them; it also clears what killed writers left."""
        if self._mesh.rank == 0:
            remove_leftovers(self._folder)
            self._store.set("resume/steps", json.dumps(finished(self._folder)[::-1]))
        steps: list[int] = json.loads(self._store.get("resume/steps"))
        return steps

    def _take_snapshot(
        self, engine: Engine, *, newest: int, source: BatchSource, progress: TrainProgress
    ) -> bool:
        """Take up the newest step that every rank has in memory, if that saves steps."""
        if self._snapshots is None:
            return False
        step = self._snapshots.newest_common(above=newest, device=self._mesh.device)
        if step < 0:
            return False
        memory = self._snapshots.own
        snapshot = memory.find(step)
        if not self._all_agree(snapshot.layout == str(self._mesh.layout)):
            return False
        self._prepare(engine, snapshot.shapes())
        memory.read_into(snapshot, engine.pieces())
        progress.load_state_dict(snapshot.state["progress"])
        source.load_state_dict(snapshot.state["loader"])
        return True

    def _prepare(self, engine: Engine, shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        names = {tensor: name for name, tensor in model_tensors(engine.placed.modules)}
        materialise([engine.optimizer], names=names, shapes=shapes)

    def _try(self, step: int, engine: Engine) -> dict[str, Any] | None:
        """The state of a checkpoint whose tensors are now loaded, or None if any rank could not read it."""
        state, reason = None, ""
        try:
            checkpoint = Checkpoint(self._reads.of(self._folder), step=step, run=self._run, key=self._key)
            self._prepare(engine, checkpoint.shapes())
            checkpoint.read_into(engine.pieces())
            state = checkpoint.root.state
        except (IntegrityError, ResourceError) as error:
            reason = error.message
        except OSError as error:  # a bad sector, a stale handle, a file of somebody else
            reason = error.strerror or type(error).__name__
        if self._all_agree(state is not None):
            return state
        self.damaged.append(step)
        if reason:
            self._events.append("checkpoint_damaged", step=step, rank=self._mesh.rank, reason=reason)
        return None

    def _all_agree(self, mine: bool) -> bool:
        votes = torch.tensor([int(mine)], device=self._mesh.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MIN)
        return bool(votes.item())


class NoGoodCheckpoint(IntegrityError):
    """There are checkpoints and none can be read. Starting again would read the same bytes."""

"""The loop of one rank: data -> step -> metrics -> checkpoint, until the last step or a wish to stop."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from rsc.checkpoint.config import CheckpointConfig
from rsc.checkpoint.neighbours import Neighbours
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.shards import Piece
from rsc.cluster.supervise.heartbeats import Board, Phase
from rsc.cluster.supervise.spec import Ending
from rsc.errors import DataError, ResourceError, RscError
from rsc.recipes.sections import TrainConfig
from rsc.train.batches.batch_source import BatchSource
from rsc.train.engine.step import Batch, Stepper, StepRecord
from rsc.train.faults import FaultInjector
from rsc.train.metrics import MetricsFile, place_digest
from rsc.train.utilisation import Gauge
from rsc.train.validate import Validator

_SPIKE_WINDOW = 64  # losses that make the mean and deviation a spike is held against
_SPIKE_WARMUP = 16
_MANY = 16  # samples of which none can be used: then it is the recipe that does not fit the data
_MAX_SKIPPED = 10  # bad batches in a row: then it is the run that is bad, not the batches


@dataclass
class TrainProgress:
    """Everything a resumed run must know besides tensors and the loader's place."""

    step: int = 0
    """Finished optimiser steps."""
    items: int = 0
    """Items (tokens, samples) that counted in the loss so far."""
    skipped: int = 0
    """Steps whose batch was left out because it was bad."""
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_SPIKE_WINDOW))
    best_loss: float | None = None
    """Lowest validation loss so far."""
    best_step: int | None = None
    since_best: int = 0
    """Validations after it."""

    def validated(self, loss: float) -> bool:
        """Take note of a validation after `step`; whether its loss is the lowest so far."""
        is_best = math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)
        if is_best:
            self.best_loss, self.best_step, self.since_best = loss, self.step, 0
        else:
            self.since_best += 1
        return is_best

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "items": self.items,
            "skipped": self.skipped,
            "losses": list(self.losses),
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "since_best": self.since_best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step, self.items, self.skipped = state["step"], state["items"], state["skipped"]
        self.losses = deque(state["losses"], maxlen=_SPIKE_WINDOW)
        self.best_loss, self.best_step = state.get("best_loss"), state.get("best_step")
        self.since_best = state.get("since_best", 0)

    def is_spike(self, loss: float, *, sigmas: float) -> bool:
        """Whether a loss is so many standard deviations above the recent mean."""
        if not sigmas or len(self.losses) < _SPIKE_WARMUP:
            return False
        recent = torch.tensor(self.losses, dtype=torch.float64)
        return loss > float(recent.mean() + sigmas * recent.std())


@dataclass(frozen=True)
class Loop:
    """One rank's loop with everything it talks to."""

    rank: int
    local_rank: int
    config: TrainConfig
    patience: int
    """Validations without a lower loss that end the training; 0: none do."""
    checkpoint: CheckpointConfig
    stepper: Stepper
    source: BatchSource
    writer: CheckpointWriter
    pieces: Callable[[], list[Piece]]
    snapshots: Neighbours | None
    layout: str
    board: Board
    metrics: MetricsFile
    gauge: Gauge
    validator: Validator | None
    faults: FaultInjector
    events: Any
    progress: TrainProgress
    problems: Counter[str] = field(default_factory=Counter)
    """What was wrong with samples since this start, in the words of train/batches/collate.py."""
    snapshot_costs_s: list[float] = field(default_factory=list)
    """CPU seconds of each snapshot since this start."""

    def run(self) -> Ending:
        """Train until the last step, or until every rank agreed to stop; ends with a durable checkpoint."""
        first_step = self.progress.step
        known = {"step": first_step, "first_step": first_step, "items": self.progress.items}
        self.board.beat(self.local_rank, phase=Phase.DATA, **known)
        self.writer.best = self.progress.best_step if self.checkpoint.keep_best else None
        while self.progress.step < self.config.steps and not self._is_out_of_patience():
            record, is_best = self._step()
            if self.progress.step == first_step + 1:  # before it, the optimiser remembers nothing
                self.writer.prepare(self.pieces())
            done = self.progress.step
            is_last = done == self.config.steps or record.stop_requested or self._is_out_of_patience()
            started_s = time.monotonic()
            is_kept = is_best and self.checkpoint.keep_best
            if is_last or is_kept or (self.checkpoint.every and done % self.checkpoint.every == 0):
                self._save()
            elif self.snapshots is not None and done % self.config.snapshot_every == 0:
                self._snapshot(self.snapshots)
            self.gauge.held_s += time.monotonic() - started_s
            if record.stop_requested and done < self.config.steps:
                return self._end(Ending.REQUEUE)
        if not self.progress.items:
            raise BadLoss(
                f"none of the {self.config.steps} steps changed the model: every batch was left out",
                hint="`rsc runs show` lists why; lower train.optimizer.learning_rate, or look at the data",
            )
        if self.rank == 0 and self._is_out_of_patience():
            best = self.progress.best_step or 0  # 0: no validation gave a number
            self.events.append("stopped_early", step=self.progress.step, best_step=best)
        return self._end(Ending.FINISHED)

    def _is_out_of_patience(self) -> bool:
        return bool(self.patience) and self.progress.since_best >= self.patience

    def _step(self) -> tuple[StepRecord, bool]:
        """The step, and whether a validation after it found the lowest loss so far."""
        number = self.progress.step
        started_s = time.monotonic()
        self.board.beat(self.local_rank, phase=Phase.DATA)
        self.faults.at(number + 1)
        batches = list(self._batches())
        data_s = time.monotonic() - started_s
        self.board.beat(self.local_rank, phase=Phase.COMPUTE)
        cpu_s = time.process_time()
        record = self.stepper.run(
            number,
            batches=batches,
            loss_factor=self.faults.loss_factor,
            stop_requested=self.board.stop_requested,
            is_spike=lambda loss: self.progress.is_spike(loss, sigmas=self.config.spike_sigmas),
        )
        own_s = data_s + time.process_time() - cpu_s
        self._note(record)
        is_best = self._tell(record, step_s=time.monotonic() - started_s, data_s=data_s, own_s=own_s)
        return record, is_best

    def _tell(self, record: StepRecord, *, step_s: float, data_s: float, own_s: float) -> bool:
        step, items = self.progress.step, self.progress.items
        facts = {"loss": record.loss, "grad_norm": record.grad_norm, "step_s": step_s, "own_s": own_s}
        self.board.beat(self.local_rank, phase=Phase.DATA, step=step, items=items, **facts)
        validation = self.validator.facts(step) if self.validator is not None else {}
        is_best = "val_loss" in validation and self.progress.validated(validation["val_loss"])
        if is_best and self.checkpoint.keep_best:
            self.writer.best = step
        if step % self.config.metrics_every and not validation:
            return False
        communication_s = max(0.0, step_s - own_s)
        self.metrics.write(
            step=step,
            record=record,
            step_s=step_s,
            data_s=data_s,
            communication_s=communication_s,
            compute_s=max(0.0, step_s - data_s - communication_s),
            items_per_s=record.count / step_s,
            read_to=place_digest(self.source.state_dict()),
            **self.gauge.facts(flops=record.flops, step_s=step_s),
            **validation,
        )
        return is_best

    def _batches(self) -> Iterator[Batch]:
        for _ in range(self.config.accumulate):
            yield next(self.source)

    def _note(self, record: StepRecord) -> None:
        """Count the step. A bad batch is skipped or ends the run, as the recipe says."""
        self.problems.update(record.problems)
        self.progress.step += 1
        if record.applied:
            self.progress.items += record.count
            self.progress.losses.append(record.loss)
            self.progress.skipped = 0
            return
        self.progress.skipped += 1
        is_chance = self.problems.total() < _MANY and self.progress.step < self.config.steps
        if not record.count and not self.progress.items and not is_chance:
            raise _nothing_usable(record, step=self.progress.step)
        facts = {"step": self.progress.step, "loss": repr(record.loss), "grad_norm": repr(record.grad_norm)}
        if self.rank == 0:
            self.events.append("bad_batch", **facts, policy=self.config.bad_loss)
        if self.config.bad_loss == "stop" or self.progress.skipped > _MAX_SKIPPED:
            raise BadLoss(
                f"step {self.progress.step}: loss {record.loss}, gradient norm {record.grad_norm}",
                hint="lower train.optimizer.learning_rate, or set train.bad_loss=skip",
            )

    def _state(self) -> dict[str, Any]:
        return {"progress": self.progress.state_dict(), "loader": self.source.state_dict()}

    def _snapshot(self, snapshots: Neighbours) -> None:
        """Copy the state into memory that outlives this process, and to another node where there is one."""
        cpu_s = time.thread_time()
        step = self.progress.step
        snapshots.own.write(step=step, pieces=self.pieces(), state=self._state(), layout=self.layout)
        snapshots.exchange(step)
        self.snapshot_costs_s.append(time.thread_time() - cpu_s)

    def _save(self) -> None:
        self.board.beat(self.local_rank, phase=Phase.CHECKPOINT)
        self.writer.save(step=self.progress.step, pieces=self.pieces(), state=self._state())
        if not self.checkpoint.asynchronous:
            self.writer.wait()
            torch.distributed.barrier()  # rank 0 comes here when the root is there, or has failed

    def _end(self, ending: Ending) -> Ending:
        self.writer.wait()
        if self.writer.failure:
            raise CheckpointLost(
                f"the checkpoint of the last step, {self.progress.step}, failed: {self.writer.failure}",
                hint="free space, then `rsc runs resume` goes on from the newest one",
            )
        if costs_s := self.snapshot_costs_s:
            self.events.append("snapshots", rank=self.rank, count=len(costs_s), cpu_s=round(sum(costs_s), 6))
        if self.rank == 0 and self.problems:
            self.events.append("problems", counts=_told(self.problems))
        torch.distributed.barrier()
        self.board.beat(self.local_rank, phase=Phase.DONE)
        self.metrics.close()
        self.source.close()
        return ending


def _told(problems: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in sorted(problems.items()))


def _nothing_usable(record: StepRecord, *, step: int) -> DataError:
    """Before anything was learned, so that it is not one bad batch on the way."""
    hint = "`rsc data show` lists the fields; model.head and the stems name what they read"
    if "label" in record.problems:
        hint = 'name the classes as they stand in the data: \'model.head.labels=["first", "second"]\''
    return DataError(
        f"step {step}: no sample of the batch can be used ({_told(record.problems) or 'no answers'})",
        hint=hint,
    )


class CheckpointLost(ResourceError):
    """A run without its last checkpoint has no result, and starting again meets the same disk."""


class BadLoss(RscError):
    """The loss is not a number, and the recipe says stop. Starting again would meet it again."""

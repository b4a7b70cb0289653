"""One optimiser step on any mesh: forward, backward, one message about everything, update.

Backward runs on the *summed* loss of each microbatch; the sum over all ranks and microbatches is divided
once, by the global count, together with clipping. So the step does not depend on how the batch was cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from rsc.checkpoint.shards import piece_of
from rsc.recipes.sections import OptimizerConfig
from rsc.train.engine.engine import Engine
from rsc.train.engine.loss import LossRecord
from rsc.train.engine.optimizers import set_learning_rate

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StepRecord:
    """The facts of one step, the same on every rank."""

    loss: float
    """Mean over the items of the whole batch, in nats."""
    count: int
    grad_norm: float
    """Before clipping, over the whole mesh."""
    applied: bool
    """False: loss or norm was not finite (or a spike) and the weights were left as they were."""
    stop_requested: bool
    flops: float
    """Forward and backward of this data-parallel rank's samples: this and `problems` differ between ranks."""
    correct: int = 0
    """Items whose best guess was right. 0 under pp, whose last stage passes on losses and counts only."""
    bad: int = 0
    """Samples with something wrong (train/batches/collate.py)."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """What was wrong with this data-parallel rank's samples, in the words of train/batches/collate.py."""


@dataclass(frozen=True)
class _Sums:
    """What ranks add up in a step. In float64 every count is exact."""

    total: float
    """Of the loss."""
    count: float
    norm_squared: float
    """Of the gradient of `total`."""
    wishes_to_stop: float
    correct: float
    bad: float


class Stepper:
    """Holds what a step needs; has no state of its own beyond the engine's."""

    def __init__(self, engine: Engine, *, config: OptimizerConfig, steps: int) -> None:
        self._engine = engine
        self._config = config
        self._steps = steps
        self._mesh = mesh = engine.placed.mesh
        self._weights = [parameter for module in engine.placed.modules for parameter in module.parameters()]
        owned = [piece_of("", parameter, is_writer=mesh.is_writer(parameter)) for parameter in self._weights]
        self._is_ours = [piece.is_ours and not piece.box.is_empty for piece in owned]

    def run(
        self,
        step: int,
        *,
        batches: Sequence[Batch],
        loss_factor: float = 1.0,
        stop_requested: bool = False,
        is_spike: Callable[[float], bool] = lambda _: False,
    ) -> StepRecord:
        """Take step number `step` (0-based). `batches` are this rank's parts, one backward pass each.

        `loss_factor` is for drills (train/faults.py): what this rank says of its loss, not its gradient.
        """
        engine = self._engine
        set_learning_rate(engine.optimizer, step=step, steps=self._steps, config=self._config)
        engine.optimizer.zero_grad()
        records = engine.backward(batches, step=step)
        engine.placed.finish_gradients()
        own = self._own_sums(records, norm_squared=self._norm_squared(), stop_requested=stop_requested)
        sums = self._agree(replace(own, total=loss_factor * own.total))
        loss = sums.total / sums.count if sums.count else math.nan
        grad_norm = math.sqrt(sums.norm_squared) / sums.count if sums.count else math.nan
        applied = math.isfinite(loss) and math.isfinite(grad_norm) and not is_spike(loss)
        if applied:
            engine.update(divisor=sums.count / self._clip(grad_norm))
        else:
            engine.skip()
        return StepRecord(
            loss=loss,
            count=int(sums.count),
            grad_norm=grad_norm,
            applied=applied,
            stop_requested=bool(sums.wishes_to_stop),
            flops=engine.work.flops,
            correct=int(sums.correct),
            bad=int(sums.bad),
            problems=dict(+engine.work.bad),
        )

    def _norm_squared(self) -> float:
        """Sum of squares of the gradients that this rank counts."""
        squares = [torch.zeros((), dtype=torch.float64)]
        for weight, is_ours in zip(self._weights, self._is_ours, strict=True):
            if is_ours and weight.grad is not None:
                gradient = weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad
                squares.append(gradient.norm().double().square().cpu())
        return float(torch.stack(squares).sum())

    def _own_sums(self, records: Sequence[LossRecord], *, norm_squared: float, stop_requested: bool) -> _Sums:
        """What this rank has to say of its part; nothing that another rank says of the same samples."""
        total = sum(float(record.total.detach()) for record in records)
        count = sum(int(record.count) for record in records)
        correct = sum(int(record.sums.get("correct", 0)) for record in records)
        bad = sum(int(n) for record in records for name, n in record.sums.items() if name.startswith("bad_"))
        if self._mesh.place("tp") != 0:  # tensor-parallel ranks see the same items; the first speaks
            total, count, correct = 0.0, 0, 0
        if self._mesh.place("tp") != 0 or self._mesh.place("cp") != 0:  # and these the same samples
            bad = 0
        return _Sums(total, count, norm_squared, stop_requested, correct, bad)

    def _agree(self, own: _Sums) -> _Sums:
        """The sums over all ranks: one message of 48 bytes."""
        if self._mesh.layout.world == 1:
            return own
        message = torch.tensor(astuple(own), dtype=torch.float64, device=self._mesh.device)
        dist.all_reduce(message)
        return _Sums(*message.tolist())

    def _clip(self, grad_norm: float) -> float:
        limit = self._config.clip_norm
        return min(1.0, limit / (grad_norm + 1e-6)) if limit else 1.0

"""Metrics of one rank, a JSON line per step in metrics/rank<r>.jsonl. A resumed run appends.

Times are wall clock of this rank. `step_s` = data_s (the loader) + communication_s (this process used no
CPU: messages and waiting for other ranks) + compute_s (the rest). On a GPU the process waits for kernels
too, so there communication_s is no more than a bound. `checkpoint_s`: held by checkpoints and snapshots
since the line before, outside `step_s`. `rss_bytes` is this process's peak, `gpu_bytes` the allocator's.
`flops`, `mfu` and `node_energy_j`: train/utilisation.py. `val_loss`, `val_bits_per_byte`: train/validate.py.
`correct`: items whose best guess was right; `bad`: samples that could not be used; `read_to`: the place in
the data.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsc.clock import Clock, timestamp
from rsc.events import LineFile, read_lines

if TYPE_CHECKING:  # torch stays out of those who only read metrics
    from rsc.train.engine.step import StepRecord
    from rsc.train.tensorboard import EventFiles


class MetricsFile:
    """One line per step. What a full disk does not take waits for room (rsc/events.py)."""

    def __init__(self, path: Path, *, clock: Clock, events: EventFiles | None = None) -> None:
        self._clock = clock
        self._events = events
        self._file = LineFile(path)

    def write(self, *, step: int, record: StepRecord, **facts: Any) -> None:
        """One step. `step` counts finished steps, so the first line says 1."""
        line = {
            "time": timestamp(self._clock.now()),
            "step": step,
            "loss": record.loss,
            "items": record.count,
            "grad_norm": record.grad_norm,
            "applied": record.applied,
            "correct": record.correct,
            "bad": record.bad,
            **{name: round(value, 6) if isinstance(value, float) else value for name, value in facts.items()},
            "rss_bytes": peak_rss_bytes(),
        }
        self._file.append(json.dumps(line, separators=(",", ":")))
        if self._events is not None:
            self._events.write(step=step, facts=line)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def place_digest(state: dict[str, Any]) -> str:
    """A name for the place that a loader has read to. Samples follow from the place and the recipe, so two
    runs whose steps end at the same places read the same samples; a digest, as the state may be long."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def losses_by_step(path: Path) -> dict[int, float]:
    """The loss of each step as the run finally took it: the last line of a repeated step counts."""
    return {line["step"]: line["loss"] for line in read_lines(path)}

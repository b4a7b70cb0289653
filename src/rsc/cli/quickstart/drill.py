"""How long the quickstart trains: the steps that fit the time, and where its worker is killed.

The drill trains twice: once with a worker killed after the first checkpoint, and once more with nobody
killed, just far enough to compare the losses beyond the resume.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WHOLE_STEPS = 400
"""Steps of the language recipe."""

LEAST_STEPS = 40
"""Fewer would leave no room for a checkpoint, a kill and losses to compare."""

# What comes from the drill to the end of the quickstart, measured on 2 cores with AVX2: in starts of a run,
# the killed run, its restart, the run that nobody kills and the commands after them, which mostly load
# libraries; in steps, the evaluation, which reads a third of the held-out text.
_STARTS = 6.0
_EVALUATION_STEPS = 10


@dataclass(frozen=True)
class Drill:
    steps: int

    @property
    def checkpoint_every(self) -> int:
        return min(25, self.steps // 10)

    @property
    def evaluation(self) -> tuple[str, ...]:
        """Settings of the evaluation: all held-out text took 100 s of CPU time on 2 cores with AVX2."""
        return () if self.steps == WHOLE_STEPS else ("eval.max_batches=4",)

    @property
    def kill_step(self) -> int:
        """After one checkpoint and before the next."""
        return self.checkpoint_every * 8 // 5

    @property
    def compare_steps(self) -> int:
        """How far the run that nobody kills goes: two checkpoints beyond where the other resumes."""
        return 3 * self.checkpoint_every

    @property
    def taken_steps(self) -> int:
        """Steps that both runs take together, those done again after the kill included."""
        return self.steps + (self.kill_step - self.checkpoint_every) + self.compare_steps


@dataclass(frozen=True)
class DrillPace:
    """What a short run took on this machine."""

    start_s: float
    """Everything but its steps: loading libraries, starting workers, the last checkpoint."""
    step_s: float

    def seconds(self, drill: Drill) -> float:
        """Expected from the start of the drill to the end of the quickstart."""
        return _STARTS * self.start_s + (drill.taken_steps + _EVALUATION_STEPS) * self.step_s


def pace_of(run_s: float, *, steps_s: Sequence[float]) -> DrillPace:
    """From the seconds of a run and of its steps. The median step counts: the first ones are slow."""
    return DrillPace(start_s=max(0.0, run_s - sum(steps_s)), step_s=statistics.median(steps_s))


def fitting_drill(left_s: float, *, pace: DrillPace) -> Drill:
    """The longest drill that ends in time, between LEAST_STEPS and WHOLE_STEPS."""
    fits = [steps for steps in range(LEAST_STEPS, WHOLE_STEPS + 1) if pace.seconds(Drill(steps)) <= left_s]
    return Drill(max(fits, default=LEAST_STEPS))


def whole_minutes(seconds: float) -> str:
    """`1 minute`, `12 minutes`: rounded up."""
    minutes = max(1, math.ceil(seconds / 60))
    return f"{minutes} minute" + "s" * (minutes != 1)

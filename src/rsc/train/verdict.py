"""From what a supervisor sees to what it does: pure functions, no processes, no torch.

crash      a worker ended by itself, with a signal or an error
hang       no step in `hang_medians` medians of the last steps (and at least `hang_floor_s`)
straggler  one rank computes `straggler_ratio` times as long as the median rank: told, not ended
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsc.train.config import TrainConfig

_FIRST_STEP_FACTOR = 10.0  # a start imports, compiles and opens data before its first step
_FATAL = {2, 3}  # configuration and gate: the same start would say the same again
_HOPELESS = {"BadLoss", "CheckpointLost"}


@dataclass(frozen=True)
class Failure:
    """Why one start of the workers ended."""

    rank: int
    kind: str
    """A word of docs/recovery.md: sigkill, hang, oom, exception, ... or the name of an RSC error."""
    message: str
    exit_code: int = 1
    hint: str | None = None

    @property
    def is_fatal(self) -> bool:
        """Whether a restart would only meet it again."""
        return self.exit_code in _FATAL or self.kind in _HOPELESS

    def sentence(self) -> str:
        return f"rank {self.rank} failed first: {self.message or self.kind} (logs/rank{self.rank}.log)"


def first_failure(statuses: Mapping[int, int], *, reports: Mapping[int, dict[str, Any]]) -> Failure:
    """The cause among ranks that ended together. Peers of a dead rank fail too, by a broken collective:
    `peer` is an echo and counts only when there is nothing else.

    `statuses`: exit codes by rank, negative for signals; `reports`: what ranks wrote before they ended.
    """
    found = [_failure(rank, status, report=reports.get(rank)) for rank, status in sorted(statuses.items())]
    assert found, "no rank failed"
    return min(found, key=lambda failure: failure.kind == "peer")


def _failure(rank: int, status: int, *, report: dict[str, Any] | None) -> Failure:
    if status < 0:
        name = signal.Signals(-status).name
        return Failure(rank, name.lower(), f"ended by {name}")
    if report is None:
        return Failure(rank, "exception", f"ended with code {status} and no report")
    message = report["message"] or f"{report['error']} at {report['where']}"
    return Failure(rank, report["kind"], message, report["exit_code"], report["hint"])


def hanging_rank(
    *,
    beats_s: Sequence[float],
    steps: Sequence[int],
    phases: Sequence[int],
    durations_s: Sequence[float],
    now_s: float,
    config: TrainConfig,
) -> int | None:
    """The rank that holds the others up, or None. `durations_s`: recent steps of this start.

    Ranks wait for each other inside collectives, so all fall silent together; the culprit is the one
    that took the fewest steps, then is in the earliest phase of its step (it has not come to where the
    others wait), then beat longest ago.
    """
    patience_s = config.hang_floor_s
    if durations_s:
        patience_s = max(patience_s, config.hang_medians * statistics.median(durations_s))
    else:
        patience_s *= _FIRST_STEP_FACTOR
    newest = max(beats_s)
    if now_s - newest < patience_s:
        return None
    return min(range(len(beats_s)), key=lambda rank: (steps[rank], phases[rank], beats_s[rank]))


def stragglers(work_s: Sequence[float], *, ratio: float) -> list[int]:
    """Ranks whose own work in a step takes `ratio` times the median of the others."""
    if len(work_s) < 2:
        return []
    slow = []
    for rank, mine in enumerate(work_s):
        others = statistics.median([other for at, other in enumerate(work_s) if at != rank])
        if others > 0 and mine > ratio * others:
            slow.append(rank)
    return slow


@dataclass(frozen=True)
class Restarts:
    """Counts failures without progress. Immutable: `after` gives the next count."""

    limit: int
    best_step: int = 0
    in_a_row: int = 0
    total: int = 0

    def after(self, *, step: int) -> Restarts:
        """One more failure, when the run had reached `step`."""
        progressed = step > self.best_step
        return Restarts(
            limit=self.limit,
            best_step=max(step, self.best_step),
            in_a_row=1 if progressed else self.in_a_row + 1,
            total=self.total + 1,
        )

    @property
    def is_crash_loop(self) -> bool:
        return self.in_a_row >= self.limit

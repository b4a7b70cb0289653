"""From what a supervisor sees to what it does: pure functions, no processes, no torch.

crash      a worker ended by itself, with a signal or an error
hang       no step in `hang_medians` medians of the last steps (and at least `hang_floor_s`)
straggler  one rank computes `straggler_ratio` times as long as the median rank, in the median of its last
           steps: told, not ended

A hang is a sign of no rank for that long while this machine ran: time in which the supervisor itself stood
still does not count. Starting (imports, compiling, loading) and checkpoints (a slow disk) get ten floors.

Not covered: a loop that goes on beating and never ends a step; a rank that is slow because of what it was
given to do, which looks like a straggler.
"""

from __future__ import annotations

import signal
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsc.cluster.supervise.config import SupervisionConfig
from rsc.cluster.supervise.heartbeats import Phase

_SLOW_PHASE_FACTOR = 10.0  # a start imports, compiles and loads before its first step; a disk may be slow
_LONGEST_LOOK_S = 1.0  # looks are 20 ms apart: one that took longer says that the machine stood still
_STRAGGLER_WINDOW = 16  # steps whose median speaks for a rank
_STRAGGLER_STEPS = 6  # and how many of them it takes at least: one slow step makes no straggler
_FATAL = {2, 3}  # configuration and gate: the same start would say the same again
_HOPELESS = {"BadLoss", "CheckpointLost", "NoGoodCheckpoint", "unkillable"}


@dataclass(frozen=True)
class Failure:
    """Why one start of the workers ended."""

    rank: int | None
    """None where it was no rank that failed."""
    kind: str
    """A word of docs/recovery.md: sigkill, hang, oom, exception, ... or the name of an RSC error."""
    message: str
    exit_code: int = 1
    hint: str | None = None

    @property
    def is_fatal(self) -> bool:
        """Whether a restart would only meet it again."""
        return self.exit_code in _FATAL or self.kind in _HOPELESS

    @property
    def is_echo(self) -> bool:
        """Whether this rank only heard, by a broken collective, that another one failed."""
        return self.kind == "peer"

    def sentence(self) -> str:
        if self.rank is None:
            return self.message
        return f"rank {self.rank} failed first: {self.message or self.kind} (logs/rank{self.rank}.log)"


def first_failure(statuses: Mapping[int, int], *, reports: Mapping[int, dict[str, Any]]) -> Failure:
    """The cause among ranks that ended together. Peers of a dead rank fail too, by a broken collective:
    `peer` is an echo and counts only when there is nothing else.

    `statuses`: exit codes by rank, negative for signals; `reports`: what ranks wrote before they ended.
    """
    found = [_failure(rank, status, report=reports.get(rank)) for rank, status in sorted(statuses.items())]
    assert found, "no rank failed"
    return min(found, key=lambda failure: failure.is_echo)


def _failure(rank: int, status: int, *, report: dict[str, Any] | None) -> Failure:
    if status < 0:
        name = signal.Signals(-status).name
        return Failure(rank, name.lower(), f"ended by {name}")
    if report is None:
        return Failure(rank, "exception", f"ended with code {status} and no report")
    message = report["message"] or f"{report['error']} at {report['where']}"
    return Failure(rank, report["kind"], message, report["exit_code"], report["hint"])


@dataclass
class Silence:
    """How long no rank of this start has given a sign, in time that the supervisor lived through itself."""

    newest_beat_s: float = float("-inf")
    looked_s: float | None = None
    silent_s: float = 0.0

    def look(self, beats_s: Sequence[float], *, now_s: float) -> float:
        """Seconds of silence, at a look at the board. A machine that was paused, swapped or starved stood
        still for its supervisor too: a gap between two looks counts `_LONGEST_LOOK_S` at most."""
        gap_s = 0.0 if self.looked_s is None else now_s - self.looked_s
        self.looked_s = now_s
        if max(beats_s) > self.newest_beat_s:
            self.newest_beat_s, self.silent_s = max(beats_s), 0.0
        else:
            self.silent_s += min(gap_s, _LONGEST_LOOK_S)
        return self.silent_s


def slow_patience_s(config: SupervisionConfig) -> float:
    """How long a start or a checkpoint may be silent."""
    return _SLOW_PHASE_FACTOR * config.hang_floor_s


def collective_patience_s(config: SupervisionConfig, *, timeout_s: float) -> float:
    """How long a rank waits for its peers in a collective (`timeout_s`: parallel.timeout_s): at least
    twice what a start or a checkpoint may be silent. Less would end what is no hang, and name any rank."""
    return max(timeout_s, 2 * slow_patience_s(config))


def is_hang(
    silent_s: float, *, phases: Sequence[int], durations_s: Sequence[float], config: SupervisionConfig
) -> bool:
    """Whether a silence of all ranks is too long. `durations_s`: recent steps of this start."""
    if not durations_s or Phase.CHECKPOINT in phases:
        return silent_s >= slow_patience_s(config)
    return silent_s >= max(config.hang_floor_s, config.hang_medians * statistics.median(durations_s))


def rank_behind(
    *, answered: Sequence[bool], steps: Sequence[int], phases: Sequence[int], beats_s: Sequence[float]
) -> int:
    """The rank that holds the others up.

    Ranks wait for each other inside collectives, so all fall silent together, and a rank that waits there
    answers a signal; the culprit is one that does not, then the one that took the fewest steps, then is in
    the earliest phase of its step (it has not come to where the others wait), then beat longest ago.
    """
    ranks = range(len(beats_s))
    return min(ranks, key=lambda rank: (answered[rank], steps[rank], phases[rank], beats_s[rank]))


@dataclass
class StepPace:
    """What each rank works itself in a step, over its last steps."""

    ratio: float
    works_s: dict[int, deque[float]] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)

    def fresh_stragglers(self, work_s: Sequence[float]) -> list[int]:
        """Take in one more step; the ranks that are stragglers from now on, each told once."""
        for rank, mine_s in enumerate(work_s):
            self.works_s.setdefault(rank, deque(maxlen=_STRAGGLER_WINDOW)).append(mine_s)
        if len(self.works_s[0]) < _STRAGGLER_STEPS:
            return []
        usual_s = [statistics.median(self.works_s[rank]) for rank in range(len(work_s))]
        fresh = [rank for rank in stragglers(usual_s, ratio=self.ratio) if rank not in self.told]
        self.told.update(fresh)
        return fresh


def stragglers(work_s: Sequence[float], *, ratio: float) -> list[int]:
    """Ranks whose own work takes `ratio` times the median of the others."""
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

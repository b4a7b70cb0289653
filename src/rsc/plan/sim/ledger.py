"""Where the GPU-seconds went: every second of every GPU is in exactly one entry."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class GpuTimeLedger:
    """GPU-seconds. `idle`, `down` and `busy` are integrals over counts of GPUs; the rest is added up from
    attempts. That both agree is the conservation test."""

    idle: float = 0.0
    down: float = 0.0
    busy: float = 0.0
    productive: float = 0.0
    slowed: float = 0.0
    """Time that a job without contention or power cap would not have taken."""
    restart: float = 0.0
    checkpoint: float = 0.0
    detection: float = 0.0
    """Held by jobs that no longer progress, until somebody sees it."""
    lost: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Work done and lost, by what ended the attempt."""
    states: Counter[str] = field(default_factory=Counter)
    """Attempts by the state they ended in."""
    state_time: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    size_time: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    """GPU-seconds of attempts by size of job."""
    node_time: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Node-seconds of attempts by size of job, until the failure where there was one."""
    failures: Counter[int] = field(default_factory=Counter)
    """FailureRates of nodes that ended attempts, by size of job."""
    causes: Counter[str] = field(default_factory=Counter)
    """FaultStreams that happened, by cause."""
    starts: Counter[int] = field(default_factory=Counter)
    events: int = 0
    lemons_removed: int = 0

    @property
    def accounted(self) -> float:
        """What the attempts add up to; equals `busy`."""
        parts = self.productive + self.slowed + self.restart + self.checkpoint + self.detection
        return parts + sum(self.lost.values())

    @property
    def total(self) -> float:
        return self.idle + self.down + self.busy

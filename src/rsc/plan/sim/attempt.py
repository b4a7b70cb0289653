"""Attempts of jobs: start, stall, end, and what each did with its GPU-seconds."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import inf, nan

from rsc.plan.sim.ledger import GpuTimeLedger
from rsc.plan.sim.nodes import Pool
from rsc.plan.sim.progress import Cadence, split, wall_s
from rsc.plan.sim.scenario import Scenario, write_s
from rsc.plan.sim.workload import Jobs

KEPT = frozenset({"COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "TIMEOUT", "RUNNING"})
"""States in which a job's work counts: the cluster did what it was asked for."""


class JobAttempt:
    """One start of a job. `end_s` is when it ends unless something happens."""

    __slots__ = (
        *("cadence", "end_s", "ended", "gpus", "job", "nodes", "speed", "stalled_s", "start_s", "times_out"),
    )

    def __init__(
        self, job: int, *, gpus: int, nodes: list[int], start_s: float, speed: float, cadence: Cadence
    ) -> None:
        self.job, self.gpus, self.nodes, self.start_s = job, gpus, nodes, start_s
        self.speed, self.cadence = speed, cadence
        self.end_s, self.stalled_s = inf, inf
        self.ended = self.times_out = False

    def stall(self, now_s: float) -> None:
        self.stalled_s = min(self.stalled_s, now_s)


class JobAttempts:
    """All attempts that run, and what is known of each job from those before."""

    def __init__(self, scenario: Scenario, jobs: Jobs, pool: Pool, ledger: GpuTimeLedger) -> None:
        self.scenario, self.jobs, self.pool, self.ledger = scenario, jobs, pool, ledger
        self.on_node: list[list[JobAttempt]] = [[] for _ in pool.free]
        self.by_qos: list[dict[JobAttempt, None]] = [{}, {}, {}]
        """In the order of their starts."""
        self.saved_s: dict[int, float] = {}
        self.interrupted: dict[int, str] = {}
        """Jobs put back into the queue: by what."""
        count = len(jobs)
        self.first_wait_s = array("d", [nan]) * count
        self.queued_s = array("d", [0.0]) * count
        self.productive_s = array("d", [0.0]) * count
        self.end_s = array("d", [nan]) * count
        self.restarts: dict[int, int] = {}
        self._since: dict[int, float] = {}
        self._store_load = 0.0
        self._cadences: dict[int, Cadence] = {}
        energy = scenario.energy
        capped = energy.cap_w and energy.cap_w < energy.busy_w
        self._power_speed = (energy.cap_w / energy.busy_w) ** energy.speed_exponent if capped else 1.0

    def running(self) -> Iterator[JobAttempt]:
        for attempts in self.by_qos:
            yield from attempts

    def queue(self, job: int, now_s: float) -> None:
        self._since[job] = now_s

    def wait(self, job: int, now_s: float) -> None:
        """The job has waited until now."""
        waited = now_s - self._since.pop(job)
        self.queued_s[job] += waited
        if job not in self.restarts:
            self.first_wait_s[job] = waited

    def start(self, job: int, now_s: float) -> JobAttempt:
        """On nodes of the pool; the job fits. Its end is known unless a fault or a preemption comes first."""
        gpus = self.jobs.gpus[job]
        self.wait(job, now_s)
        self.restarts[job] = self.restarts.get(job, -1) + 1
        nodes = self.pool.take(gpus)
        cadence = self._cadence(gpus, len(nodes))
        self._store_load += self._load_of(gpus)
        attempt = JobAttempt(
            job, gpus=gpus, nodes=nodes, start_s=now_s, speed=self._speed(nodes), cadence=cadence
        )
        left = (self.jobs.work_s[job] - self.saved_s.get(job, 0.0)) / attempt.speed
        lasts, limit = wall_s(left, attempt.cadence), self.scenario.scheduler.time_limit_s
        attempt.times_out = bool(limit) and lasts > limit
        attempt.end_s = now_s + (limit if attempt.times_out else lasts)
        for node in attempt.nodes:
            self.on_node[node].append(attempt)
        self.by_qos[self.jobs.qos[job]][attempt] = None
        self.ledger.starts[gpus] += 1
        return attempt

    def end(self, attempt: JobAttempt, now_s: float, *, state: str, reason: str = "") -> None:
        """Book the attempt's time and forget it. The caller gives its nodes back."""
        attempt.ended = True
        ledger, gpus, job = self.ledger, attempt.gpus, attempt.job
        worked_until = min(now_s, attempt.stalled_s)
        parts = split(worked_until - attempt.start_s, attempt.cadence)
        kept = parts.work_s if state in KEPT else parts.saved_s
        ledger.restart += gpus * parts.restart_s
        ledger.checkpoint += gpus * parts.write_s
        ledger.productive += gpus * kept * attempt.speed
        ledger.slowed += gpus * kept * (1 - attempt.speed)
        ledger.detection += gpus * (now_s - worked_until)
        if state not in KEPT:
            ledger.lost[reason] += gpus * (parts.work_s - kept)
            self.saved_s[job] = self.saved_s.get(job, 0.0) + kept * attempt.speed
            self.interrupted[job] = reason
        self.productive_s[job] += kept * attempt.speed
        self.end_s[job] = now_s
        ledger.states[state] += 1
        ledger.state_time[state] += gpus * (now_s - attempt.start_s)
        ledger.size_time[gpus] += gpus * (now_s - attempt.start_s)
        ledger.node_time[gpus] += len(attempt.nodes) * (worked_until - attempt.start_s)
        for node in attempt.nodes:
            self.on_node[node].remove(attempt)
        del self.by_qos[self.jobs.qos[job]][attempt]
        self._store_load -= self._load_of(gpus)

    def _speed(self, nodes: list[int]) -> float:
        """1 without contention or cap. Traffic between pods slows a job where routing is not adaptive."""
        fabric = self.scenario.fabric
        if fabric.adaptive_routing or len(nodes) == 1 or self.pool.pods_of(nodes) == 1:
            return self._power_speed
        share = fabric.communication_share
        return self._power_speed / (1 - share + share / (1 - fabric.loss_without))

    def _load_of(self, gpus: int) -> float:
        """Share of the store that the checkpoints of such a job keep busy."""
        interval, store = self.scenario.checkpoint.interval_s, self.scenario.storage.bytes_per_s
        return self.scenario.checkpoint.bytes_per_gpu * gpus / store / interval if store and interval else 0.0

    def _cadence(self, gpus: int, nodes: int) -> Cadence:
        """Checkpoints of an attempt; where the store is shared, as fast as the others leave it now."""
        if self.scenario.storage.bytes_per_s:
            return self._cadence_of(write_s(self.scenario, nodes, load=self._store_load))
        if gpus not in self._cadences:
            self._cadences[gpus] = self._cadence_of(write_s(self.scenario, nodes))
        return self._cadences[gpus]

    def _cadence_of(self, write: float) -> Cadence:
        point = self.scenario.checkpoint
        if point.blocking:
            return Cadence(point.restart_s, point.interval_s, write, 0.0)
        return Cadence(point.restart_s, point.interval_s, 0.0, write)

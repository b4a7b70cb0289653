"""The scheduler: who is next, what may overtake, who makes room. Rules of Slurm's priority/multifactor,
sched/backfill (EASY: one reservation) and preempt/qos with requeue.
"""

from __future__ import annotations

from heapq import heappop, heapreplace

import numpy as np

from rsc.plan.sim.attempt import JobAttempt, JobAttempts
from rsc.plan.sim.nodes import Pool
from rsc.plan.sim.pending import Pending
from rsc.plan.sim.scenario import Scenario
from rsc.plan.sim.workload import Jobs

PLAN_AGAIN_PASSES = 10
"""A reservation, and the finding that preempting makes no room, hold for so many intervals of the scheduler
(Slurm's bf_interval has the same proportion to sched_interval)."""


class Dispatcher:
    def __init__(self, scenario: Scenario, jobs: Jobs, pool: Pool, attempts: JobAttempts) -> None:
        self.rules, self.jobs, self.pool, self.attempts = scenario.scheduler, jobs, pool, attempts
        self.pending = Pending()
        self.free_at = np.zeros(scenario.cluster.nodes)
        """When each node is free at the latest by the limits of its jobs; 0 = now, inf = down."""
        self._keys: dict[int, float] = {}
        self._usage = [(0.0, 0.0)] * scenario.workload.projects
        """Of each account: decayed GPU-seconds, and when that was."""
        self._whole_usage = scenario.gpus * self.rules.fair_share_half_life_s / np.log(2)
        self._hold_s = PLAN_AGAIN_PASSES * self.rules.interval_s
        self._reserved: tuple[int, float, float, int] = (-1, 0.0, 0.0, 0)
        self._no_victims: dict[int, float] = {}

    def submit(self, job: int, now_s: float) -> None:
        """Into the queue, with a key that age, QOS and the account's recent usage decide."""
        rules, project = self.rules, self.jobs.project[job]
        key = now_s - self.jobs.qos[job] * rules.qos_weight_s
        if rules.fair_share_weight_s:
            key += rules.fair_share_weight_s * self._decayed(project, now_s) / self._whole_usage
        self._keys[job] = key
        self._enqueue(job, now_s)

    def requeue(self, attempt: JobAttempt, now_s: float) -> None:
        """The same job with the age it has."""
        self._enqueue(attempt.job, now_s)

    def _enqueue(self, job: int, now_s: float) -> None:
        self.attempts.queue(job, now_s)
        self.pending.add(job, key=self._keys[job], gpus=self.jobs.gpus[job], limit_s=self.jobs.limit_s[job])

    def charge(self, attempt: JobAttempt, now_s: float) -> None:
        """An account pays for what its attempt held."""
        project = self.jobs.project[attempt.job]
        used = attempt.gpus * (now_s - attempt.start_s)
        self._usage[project] = (self._decayed(project, now_s) + used, now_s)
        free_at = self.free_at
        for node in attempt.nodes:
            if not self.attempts.on_node[node] and self.pool.up[node]:
                free_at[node] = 0.0

    def _decayed(self, project: int, now_s: float) -> float:
        used, at = self._usage[project]
        return float(used * 0.5 ** ((now_s - at) / self.rules.fair_share_half_life_s)) if used else 0.0

    def expect_down(self, node: int) -> None:
        self.free_at[node] = np.inf

    def schedule(self, now_s: float) -> tuple[list[JobAttempt], list[JobAttempt]]:
        """One pass: the attempts that start, and those that were preempted for them.

        The caller gives the nodes of preempted attempts back; here they already count as free.
        """
        started: list[JobAttempt] = []
        preempted: list[JobAttempt] = []
        heads = self.pending.heads()
        blocked = False
        while heads:
            _, job, gpus, group = heads[0]
            if not blocked and not self.pool.fits(gpus):
                victims = self._preempt_for(job, gpus, now_s)
                if victims:
                    preempted += victims
                    return started, preempted
                if not self.rules.backfill:
                    break
                blocked = True
                self._reserve(job, gpus, now_s)
            if blocked and not self._may_overtake(job, gpus, now_s):
                heappop(heads)
                continue
            self.pending.remove_head(group)
            started.append(self._start(job, now_s))
            if group:
                heapreplace(heads, (*group[0], gpus, group))
            else:
                heappop(heads)
        return started, preempted

    def _start(self, job: int, now_s: float) -> JobAttempt:
        attempt = self.attempts.start(job, now_s)
        until, free_at = now_s + self.jobs.limit_s[job], self.free_at
        for node in attempt.nodes:
            if free_at[node] < until:
                free_at[node] = until
        return attempt

    def _preempt_for(self, job: int, gpus: int, now_s: float) -> list[JobAttempt]:
        """End attempts of lower QOS, oldest first, until the job fits; end none if it cannot."""
        rules, pool, qos, per_node = self.rules, self.pool, self.jobs.qos[job], self.pool.per_node
        if not rules.preemption or not qos or self._no_victims.get(gpus, -1.0) > now_s:
            return []
        missing = 1 if gpus < per_node else gpus // per_node - pool.whole_nodes
        victims: list[JobAttempt] = []
        for attempts in self.attempts.by_qos[:qos]:
            for attempt in attempts:
                if attempt.start_s > now_s - rules.preempt_after_s or missing <= 0:
                    break
                fits = attempt.gpus >= gpus if gpus < per_node else attempt.gpus >= per_node
                if fits and self._is_below(attempt, job):
                    victims.append(attempt)
                    missing -= 1 if gpus < per_node else len(attempt.nodes)
        if missing > 0:
            self._no_victims[gpus] = now_s + self._hold_s
            return []
        second = self.attempts.interrupted.get(job) in ("failure", "false positive")
        for attempt in victims:
            self.attempts.end(
                attempt, now_s, state="PREEMPTED", reason="second order" if second else "preemption"
            )
            self.requeue(attempt, now_s)
        return victims

    def _is_below(self, attempt: JobAttempt, job: int) -> bool:
        """A victim that would come first again, or whose nodes go to repair, makes no room."""
        if self._keys[attempt.job] <= self._keys[job]:
            return False
        return all(self.pool.up[node] for node in attempt.nodes)

    def _reserve(self, job: int, gpus: int, now_s: float) -> None:
        """When the job can start at the latest, and how many nodes are free then beyond its own."""
        reserved, planned_at, _, _ = self._reserved
        if reserved == job and now_s - planned_at < self._hold_s:
            return
        nodes = max(1, gpus // self.pool.per_node)
        at = float(np.partition(self.free_at, nodes - 1)[nodes - 1])
        spare = int(np.count_nonzero(self.free_at <= at)) - nodes
        self._reserved = (job, now_s, max(at, now_s), spare)

    def _may_overtake(self, job: int, gpus: int, now_s: float) -> bool:
        """Backfill: it fits, and it ends before the reservation or takes nodes that this does not need."""
        if not self.pool.fits(gpus):
            return False
        reserved, planned_at, at, spare = self._reserved
        if now_s + self.jobs.limit_s[job] <= at:
            return True
        nodes = max(1, gpus // self.pool.per_node)
        if nodes > spare:
            return False
        self._reserved = (reserved, planned_at, at, spare - nodes)
        return True

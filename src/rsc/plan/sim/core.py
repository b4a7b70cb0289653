"""The event loop: jobs arrive, start, end; nodes fail, are found, repaired and come back.

Three sources of events in order of time: submissions and faults (sorted, drawn before) and a heap of what
follows from them. Fault -> the node's jobs stall -> it is found after a delay -> jobs requeue, the node is
repaired -> it comes back. Scheduling is in dispatch.py.
"""

from __future__ import annotations

import gc
from collections import deque
from heapq import heappop, heappush
from math import exp, inf
from typing import Any

from rsc.plan.sim.attempt import JobAttempt, JobAttempts
from rsc.plan.sim.dispatch import Dispatcher
from rsc.plan.sim.faults import FALSE_POSITIVE, NODE, FaultStreams, NodeFault, size_factor
from rsc.plan.sim.ledger import GpuTimeLedger
from rsc.plan.sim.nodes import Pool
from rsc.plan.sim.scenario import Scenario
from rsc.plan.sim.workload import ENDINGS, Jobs, lognormal

FINISH, FOUND, REPAIRED, UP, TICK = range(5)


class Simulation:
    """One life of one cluster. `run()` once, then read `ledger` and `attempts`."""

    def __init__(self, scenario: Scenario, jobs: Jobs, faults: FaultStreams) -> None:
        cluster = scenario.cluster
        self.scenario, self.jobs, self.faults = scenario, jobs, faults
        self.now_s = 0.0
        self.ledger = GpuTimeLedger()
        self.pool = Pool(
            cluster.nodes, gpus_per_node=cluster.gpus_per_node, nodes_per_pod=cluster.nodes_per_pod
        )
        self.attempts = JobAttempts(scenario, jobs, self.pool, self.ledger)
        self.dispatcher = Dispatcher(scenario, jobs, self.pool, self.attempts)
        self._events: list[tuple[float, int, int, Any]] = []
        self._number = 0
        self._tick_at = -1.0
        self._down_gpus = 0
        self._capacity = scenario.gpus
        self._spares = scenario.repair.spares
        self._waiting: deque[int] = deque()
        self._lemons = set(faults.lemons)
        self._drains: dict[int, NodeFault] = {}
        self._repaired_at = [-inf] * cluster.nodes
        self._found: dict[int, deque[float]] = {}

    def run(self) -> None:
        """Every event up to the horizon."""
        horizon = self.scenario.horizon_s
        submits, faults, events = self.jobs.submit_s, self.faults.events, self._events
        num_jobs, num_faults, job, fault = len(submits), len(faults), 0, 0
        next_submit = submits[0] if num_jobs else inf
        next_fault = faults[0].time_s if num_faults else inf
        every_event = not self.scenario.scheduler.interval_s
        handlers = self._finish, self._node_found, self._repaired, self._node_up, self._tick
        while True:
            due = events[0][0] if events else inf
            if next_submit <= due and next_submit <= next_fault:
                if next_submit >= horizon:
                    break
                self._advance(next_submit)
                self.dispatcher.submit(job, next_submit)
                job += 1
                next_submit = submits[job] if job < num_jobs else inf
                self._want_pass()
            elif next_fault <= due:
                if next_fault >= horizon:
                    break
                self._advance(next_fault)
                self._fail(faults[fault])
                fault += 1
                next_fault = faults[fault].time_s if fault < num_faults else inf
            else:
                if due >= horizon:
                    break
                _, _, kind, what = heappop(events)
                if kind == FINISH and what.ended:
                    continue
                self._advance(due)
                handlers[kind](what)
            if every_event and self.dispatcher.pending.count:
                self._start_jobs()
        self._advance(horizon)
        self._close(horizon)

    def _advance(self, now_s: float) -> None:
        elapsed, ledger = now_s - self.now_s, self.ledger
        idle, down = self.pool.free_gpus, self._down_gpus
        ledger.idle += idle * elapsed
        ledger.down += down * elapsed
        ledger.busy += (self._capacity - idle - down) * elapsed
        ledger.events += 1
        self.now_s = now_s

    def _push(self, time_s: float, kind: int, what: Any) -> None:
        self._number += 1
        heappush(self._events, (time_s, self._number, kind, what))

    def _want_pass(self) -> None:
        """A pass over the queue at the next tick of the scheduler, unless one is due already."""
        interval = self.scenario.scheduler.interval_s
        if interval and self._tick_at < self.now_s and self.dispatcher.pending.count:
            self._tick_at = (self.now_s // interval + 1) * interval
            self._push(self._tick_at, TICK, None)

    def _tick(self, _: None) -> None:
        self._tick_at = -1.0
        self._start_jobs()

    def _start_jobs(self) -> None:
        preempted = True
        while preempted:  # who was preempted for goes first in the next pass
            started, victims = self.dispatcher.schedule(self.now_s)
            for attempt in started:
                if attempt.end_s < self.scenario.horizon_s:
                    self._push(attempt.end_s, FINISH, attempt)
            for attempt in victims:
                self._after_end(attempt)
            preempted = bool(victims)

    def _finish(self, attempt: JobAttempt) -> None:
        ending = ENDINGS[self.jobs.ending[attempt.job]]
        if attempt.times_out:
            self.attempts.end(attempt, self.now_s, state="TIMEOUT")
        else:
            self.attempts.end(attempt, self.now_s, state=ending)
        self._after_end(attempt)

    def _after_end(self, attempt: JobAttempt) -> None:
        """GPUs go back to the pool, or to the account of a node that is down."""
        share = min(attempt.gpus, self.pool.per_node)
        for node in attempt.nodes:
            if self.pool.up[node]:
                self.pool.give_back(node, share)
            else:
                self._down_gpus += share
                if node in self._drains and not self.attempts.on_node[node]:
                    self._repair(node, self._drains.pop(node))
        self.dispatcher.charge(attempt, self.now_s)
        self._want_pass()

    def _fail(self, fault: NodeFault) -> None:
        node, failures = fault.node, self.scenario.failures
        if not self.pool.up[node] or not self._happens(fault):
            return
        cause = failures.causes[fault.cause]
        self.ledger.causes[("false positive", "domain")[fault.kind - 1] if fault.kind else cause.name] += 1
        health = self.scenario.health
        seen = fault.kind == FALSE_POSITIVE or (health.checks and fault.detected < cause.coverage)
        permanent = fault.kind != FALSE_POSITIVE and fault.permanent < cause.permanent
        if seen and cause.severity == "low" and fault.kind == NODE:
            self._drain(node, fault)
            return
        delay = (
            fault.delay * health.interval_s
            if seen
            else health.heartbeat_s
            if permanent
            else health.undetected_s
        )
        state = "REQUEUED" if seen else "NODE_FAIL"
        reason = "false positive" if fault.kind == FALSE_POSITIVE else "failure"
        for attempt in self.attempts.on_node[node]:
            attempt.stall(self.now_s)
        if not seen and not permanent and not self.attempts.on_node[node]:
            return  # nobody was there to notice a fault that passes
        self._down_gpus += self.pool.take_down(node)
        self.dispatcher.expect_down(node)
        self._push(self.now_s + delay, FOUND, (fault, state, reason, permanent, seen))

    def _happens(self, fault: NodeFault) -> bool:
        """Whether the rate of this moment lets the fault happen (see faults.py)."""
        if fault.kind != NODE:
            return True
        failures, node = self.scenario.failures, fault.node
        rate = failures.lemon_factor if node in self._lemons else 1.0
        highest = self.faults.ceiling * (failures.lemon_factor if node in self.faults.lemons else 1.0)
        if failures.infant_factor > 1:
            age = self.now_s - self._repaired_at[node]
            rate *= 1 + (failures.infant_factor - 1) * exp(-age / failures.infant_decay_s)
        if failures.size_exponent and self.attempts.on_node[node]:
            nodes = max(len(attempt.nodes) for attempt in self.attempts.on_node[node])
            rate *= size_factor(self.scenario, nodes)
        return fault.mark * highest < rate

    def _drain(self, node: int, fault: NodeFault) -> None:
        """Jobs may end first."""
        self._down_gpus += self.pool.take_down(node)
        self.dispatcher.expect_down(node)
        if self.attempts.on_node[node]:
            self._drains[node] = fault
        else:
            self._repair(node, fault)

    def _node_found(self, what: tuple[NodeFault, str, str, bool, bool]) -> None:
        fault, state, reason, permanent, seen = what
        for number, attempt in enumerate(list(self.attempts.on_node[fault.node])):
            if number == 0 and fault.kind != FALSE_POSITIVE:
                self.ledger.failures[attempt.gpus] += 1
            self.attempts.end(attempt, self.now_s, state=state, reason=reason)
            self.dispatcher.requeue(attempt, self.now_s)
            self._after_end(attempt)
        if seen or permanent:
            self._repair(fault.node, fault)
        else:
            self._node_up(fault.node)  # nothing was found: it takes jobs again

    def _repair(self, node: int, fault: NodeFault) -> None:
        repair, causes = self.scenario.repair, self.scenario.failures.causes
        permanent = fault.kind != FALSE_POSITIVE and fault.permanent < causes[fault.cause].permanent
        if fault.kind != FALSE_POSITIVE and self._is_lemon(node):
            permanent = True
        if permanent:
            self._repaired_at[node] = self.now_s
        mean = (
            0.0 if fault.kind == FALSE_POSITIVE else repair.permanent_s if permanent else repair.transient_s
        )
        away = lognormal(mean, repair.sigma, fault.repair) + repair.test_s
        self._push(self.now_s + away, REPAIRED, None)
        if self._spares and away > repair.swap_s:
            self._spares -= 1
            self._push(self.now_s + repair.swap_s, UP, node)
        else:
            self._waiting.append(node)

    def _is_lemon(self, node: int) -> bool:
        """Whether the node has failed so often of late that it is replaced; a new one is no lemon."""
        health = self.scenario.health
        times = self._found.setdefault(node, deque())
        times.append(self.now_s)
        while times[0] < self.now_s - health.lemon_window_s:
            times.popleft()
        if not (health.checks and health.lemon_detection) or len(times) < health.lemon_failures:
            return False
        times.clear()
        self._lemons.discard(node)
        self.ledger.lemons_removed += 1
        return True

    def _repaired(self, _: None) -> None:
        """A mended node stands in where one is missed longest, or becomes a spare."""
        if self._waiting:
            self._node_up(self._waiting.popleft())
        else:
            self._spares += 1

    def _node_up(self, node: int) -> None:
        self.pool.bring_up(node, self.pool.per_node)
        self._down_gpus -= self.pool.per_node
        self.dispatcher.free_at[node] = 0.0
        self._want_pass()

    def _close(self, horizon_s: float) -> None:
        for attempt in list(self.attempts.running()):
            self.attempts.end(attempt, horizon_s, state="RUNNING")
        for job in self.dispatcher.pending.jobs():
            self.attempts.wait(job, horizon_s)


def simulate(scenario: Scenario, *, seed: int, jobs: Jobs | None = None) -> Simulation:
    """One run of the scenario with this seed."""
    from rsc.plan.sim.faults import draw
    from rsc.plan.sim.workload import generate

    given = generate(scenario, seed=seed) if jobs is None else jobs
    life = Simulation(scenario, given, draw(scenario, seed=seed))
    collected = gc.isenabled()
    gc.disable()  # nothing here forms cycles, and the collector would walk millions of jobs again and again
    try:
        life.run()
    finally:
        if collected:
            gc.enable()
    return life

"""The supervisor of a job: starts its ranks, watches them, restarts the world from the newest state.

It knows which rank failed first and why, hangs, stragglers, and when to give up; where the ranks are, `Nodes`
knows, and what they do, `Entry`. It never holds a key. It reports what happens as JSON lines on stdout and
ends when its stdin closes, so an orphan does not go on.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rsc.cluster.supervise.config import SupervisionConfig
from rsc.cluster.supervise.exits import POLL_S
from rsc.cluster.supervise.failures import (
    Failure,
    Restarts,
    Silence,
    StepPace,
    first_failure,
    is_hang,
    rank_behind,
)
from rsc.cluster.supervise.local_node import DEATH_S
from rsc.cluster.supervise.nodes import Nodes
from rsc.cluster.supervise.ranks import ending_of, is_failure
from rsc.cluster.supervise.spec import Ending
from rsc.errors import Interrupted, ResourceError
from rsc.events import EventLog

_CAUSE_S = 2.0  # for the cause to end too, after a rank that only heard of it by a broken collective
_MEDIAN_STEPS = 32


@dataclass
class Supervisor:
    nodes: Nodes
    config: SupervisionConfig
    events: EventLog
    restarts: Restarts
    pace: StepPace
    silence: Silence = field(default_factory=Silence)
    durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MEDIAN_STEPS))
    attempt: int = 0
    is_started: bool = False
    """Whether the controller knows where this start went on."""
    told_step: int = 0
    """The newest step that the controller knows of."""

    def run(self) -> int:
        """Start and restart until the run ends; returns the exit code."""
        while True:
            started_s = time.monotonic()
            try:
                outcome = self._one_start()
            except ResourceError as error:  # too few nodes, no memory for a process
                outcome = Failure(None, "resources", error.message, error.exit_code, error.hint)
                self._give_up(outcome)
                return outcome.exit_code
            self._tell_start()
            if self._step() > self.told_step:
                self._tell_progress()
            if isinstance(outcome, Ending):
                self.tell("end", ending=outcome, step=self._step())
                return outcome.exit_code
            self.restarts = self.restarts.after(step=self._step())
            facts = {"rank": outcome.rank, "reason": outcome.kind, "message": outcome.message}
            self.events.append("failure", step=self._step(), **facts)
            if outcome.is_fatal or self.restarts.is_crash_loop:
                self._give_up(outcome)
                return outcome.exit_code
            self.events.append("restart", attempt=self.attempt + 1, ran_s=time.monotonic() - started_s)
            self.tell("restart", step=self._step(), restarts=self.restarts.total, **facts)
            self.attempt += 1

    def listen(self) -> None:
        """A scheduler's SIGTERM or SIGUSR1 asks for a checkpoint; Ctrl-C comes through the controller."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: self.nodes.request_stop())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _give_up(self, failure: Failure) -> None:
        reason = failure.sentence()
        if self.restarts.is_crash_loop and not failure.is_fatal:
            reason = f"{self.restarts.in_a_row} failures without a new step; the last: {reason}"
        self.events.append("gave_up", step=self._step(), reason=reason)
        self.tell("failed", step=self._step(), reason=reason, hint=failure.hint, exit_code=failure.exit_code)

    def _one_start(self) -> Ending | Failure:
        self.is_started = False
        self.durations_s.clear()
        self.pace = StepPace(self.config.straggler_ratio, told=self.pace.told)
        self.silence = Silence()
        try:
            self.nodes.start(f"{os.getpid()}.{self.attempt}.{time.time_ns():x}")
            for rank, pid in self.nodes.pids.items():
                self.events.append("worker_started", rank=rank, pid=pid, attempt=self.attempt)
                self.tell("worker", rank=rank, pid=pid, attempt=self.attempt)
            return self._watch()
        except BaseException:
            self.nodes.end()
            raise

    def _watch(self) -> Ending | Failure:
        told_s = 0.0
        while True:
            codes = self.nodes.exit_codes()
            if any(map(is_failure, codes.values())):
                return self._end(self._cause())
            if len(codes) == len(self.nodes.pids):
                self.nodes.reap()
                return ending_of(codes.values())
            if self._is_hanging():
                return self._end(None)
            self._tell_start()
            is_news = self.is_started and self._step() != self.told_step
            if is_news and time.monotonic() - told_s >= self.config.heartbeat_s:
                told_s = time.monotonic()
                self._tell_progress()
            self.nodes.wait()

    def _cause(self) -> Failure | None:
        """Who failed first among those that end now. None: only echoes, so a rank that is still there is
        the cause, which holds the others up until their collective timed out."""
        self.nodes.pause(POLL_S)  # who else ended in the same breath
        deadline_s = time.monotonic() + _CAUSE_S
        while True:
            codes = self.nodes.exit_codes()
            bad = {rank: code for rank, code in codes.items() if is_failure(code)}
            first = first_failure(bad, reports=self.nodes.reports(bad))
            if not first.is_echo or len(codes) == len(self.nodes.pids):
                return first
            if time.monotonic() > deadline_s:
                return None
            self.nodes.pause(POLL_S)

    def _end(self, failure: Failure | None) -> Failure:
        """End who is left; without a known failure, dump what they do and name the one behind."""
        gone = self.nodes.exit_codes()
        failure = failure or self._hang([rank for rank in self.nodes.pids if rank not in gone])
        if left := self.nodes.end():
            return _unkillable(left[0], after=failure)
        return failure

    def _hang(self, alive: list[int]) -> Failure:
        """Of the ranks that are there, the one that the others wait for."""
        answered = self.nodes.dump(alive)
        rows = self.nodes.rows[alive]
        behind = rank_behind(
            answered=[rank in answered for rank in alive],
            steps=rows["step"].tolist(),
            phases=rows["phase"].tolist(),
            beats_s=rows["beat_s"].tolist(),
        )
        rank, step = alive[behind], int(rows["step"][behind])
        left = f"see logs/rank{rank}.stacks and logs/rank{rank}.collectives.json"
        if rank not in answered:
            left = "it answered no signal: stopped, or waiting in the kernel"
        return Failure(rank, "hang", f"no step after {step}; {left}", exit_code=4)

    def _is_hanging(self) -> bool:
        rows = self.nodes.rows
        silent_s = self.silence.look(rows["beat_s"].tolist(), now_s=time.monotonic())
        phases = rows["phase"].tolist()
        return is_hang(silent_s, phases=phases, durations_s=list(self.durations_s), config=self.config)

    def _tell_start(self) -> None:
        """Once, as soon as every rank knows where it went on: the ranks may be some steps further by then."""
        firsts = self.nodes.rows["first_step"]
        if self.is_started or (firsts < 0).any():
            return
        self.is_started, self.told_step = True, int(firsts.min())
        self.tell("started", step=self.told_step)

    def _tell_progress(self) -> None:
        rows = self.nodes.rows
        first = rows[0]
        self.told_step = self._step()
        self.durations_s.append(float(first["step_s"]))
        self.tell(
            "progress",
            step=self.told_step,
            loss=float(first["loss"]),
            items=int(first["items"]),
            time_s=time.monotonic(),
        )
        for rank in self.pace.fresh_stragglers(rows["own_s"].tolist()):
            self.events.append("straggler", rank=rank, step=self._step(), own_s=float(rows["own_s"][rank]))

    def _step(self) -> int:
        return int(self.nodes.rows["step"].min())

    def tell(self, kind: str, **facts: Any) -> None:
        print(json.dumps({"kind": kind, **facts}), flush=True)


def supervise(nodes: Nodes, *, config: SupervisionConfig, events: EventLog) -> int:
    """Drive the ranks of a job until they are done, or hopeless; returns the exit code."""
    supervisor = Supervisor(
        nodes,
        config=config,
        events=events,
        restarts=Restarts(limit=config.max_failures_without_progress),
        pace=StepPace(config.straggler_ratio),
    )
    supervisor.listen()
    try:
        return supervisor.run()
    except KeyboardInterrupt:
        return Interrupted.exit_code


def _unkillable(rank: int, *, after: Failure) -> Failure:
    return Failure(
        rank,
        "unkillable",
        f"SIGKILL has not ended it in {DEATH_S:.0f} s: waiting in the kernel (before: {after.sentence()})",
        exit_code=4,
        hint="see in the kernel's log which disk or device hangs; `rsc runs resume` once the process is gone",
    )

"""The supervisor of one node: starts its ranks, watches them, restarts the world from the newest state.

Process handling is torch elastic's (`start_processes`); what is ours is knowing which rank failed first
and why, hangs, stragglers, and when to give up. It never holds a key. Run by the controller inside the
sandbox as `python -m rsc.cluster.supervise.node SPEC`; it tells the controller what happens as JSON lines on
stdout and ends when its stdin closes, so an orphan does not train on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, start_processes

from rsc.checkpoint.snapshot import new_memory
from rsc.clock import SystemClock
from rsc.cluster.supervise.exits import POLL_S, EndsOf, ended, still_there
from rsc.cluster.supervise.failures import (
    Failure,
    Pace,
    Restarts,
    Silence,
    first_failure,
    is_hang,
    rank_behind,
)
from rsc.cluster.supervise.heartbeats import Board
from rsc.cluster.supervise.stack_dumps import request_dumps
from rsc.errors import Interrupted, RequeueMe
from rsc.events import EventLog
from rsc.recipes.sections import TrainConfig
from rsc.runs.folder import events_of_workers
from rsc.train.assemble import WorkerSpec
from rsc.train.loop import Ending
from rsc.train.worker import error_file, work

_CAUSE_S = 2.0  # for the cause to end too, after a rank that only heard of it by a broken collective
_DEATH_S = 30.0  # for SIGKILL to end a rank: one that waits for a dead disk or device is not ended by it
_MEDIAN_STEPS = 32


@dataclass(frozen=True)
class Job:
    """What the controller asks for."""

    run: str
    data: str
    recipe: dict[str, Any]
    workers: int
    socket: str
    cache: str | None = None
    mover: str | None = None
    """The node's cache and the socket of who fills it, where data lies in an object store."""


@dataclass
class Supervisor:
    job: Job
    config: TrainConfig
    board: Board
    board_path: Path
    events: EventLog
    restarts: Restarts
    memories: tuple[int, ...]
    pace: Pace
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
            outcome = self._one_start()
            self._tell_start()
            if self._step() > self.told_step:
                self._tell_progress()
            if isinstance(outcome, Ending):
                self.tell("end", ending=outcome, step=self._step())
                return 0 if outcome is Ending.FINISHED else RequeueMe.exit_code
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
            signal.signal(number, lambda *_: self.board.request_stop())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _give_up(self, failure: Failure) -> None:
        reason = failure.sentence()
        if self.restarts.is_crash_loop and not failure.is_fatal:
            reason = f"{self.restarts.in_a_row} failures without a new step; the last: {reason}"
        self.events.append("gave_up", step=self._step(), reason=reason)
        self.tell("failed", step=self._step(), reason=reason, hint=failure.hint, exit_code=failure.exit_code)

    def _one_start(self) -> Ending | Failure:
        self.board.clear()
        self.is_started = False
        self.durations_s.clear()
        self.pace = Pace(self.config.straggler_ratio, told=self.pace.told)
        self.silence = Silence()
        workers = self.job.workers
        spec = WorkerSpec(
            run=Path(self.job.run),
            data=Path(self.job.data),
            recipe=self.job.recipe,
            attempt=f"{os.getpid()}.{self.attempt}.{time.time_ns():x}",
            world=workers,
            local_world=workers,
            first_rank=0,
            master=("127.0.0.1", _free_port()),
            board=self.board_path,
            socket=Path(self.job.socket),
            memories=self.memories,
            cache=Path(self.job.cache) if self.job.cache else None,
            mover=Path(self.job.mover) if self.job.mover else None,
        )
        context = start_processes(
            "rank",
            work,
            args={rank: (rank, spec) for rank in range(workers)},
            envs={rank: {} for rank in range(workers)},
            logs_specs=DefaultLogsSpecs(),
            start_method="fork" if sys.platform == "linux" else "spawn",
        )
        for rank, pid in context.pids().items():
            self.events.append("worker_started", rank=rank, pid=pid, attempt=self.attempt)
            self.tell("worker", rank=rank, pid=pid, attempt=self.attempt)
        try:
            return self._watch(context)
        except BaseException:
            _signal(context.pids(), signal.SIGKILL)
            raise

    def _watch(self, context: PContext) -> Ending | Failure:
        with EndsOf(context.pids().values()) as ends:
            return self._watch_until(ends, context)

    def _watch_until(self, ends: EndsOf, context: PContext) -> Ending | Failure:
        pids = context.pids()
        told_s = 0.0
        while True:
            result = context.wait(timeout=0) if not ended(pids) else None
            if result is not None and result.is_failed():  # a rank ended since the look above
                bad = {rank: failure.exitcode for rank, failure in result.failures.items()}
                return first_failure(bad, reports=_reports(Path(self.job.run), bad))
            if result is not None:
                return Ending(next(iter(result.return_values.values())))
            statuses = ended(pids)
            failed = {rank: status for rank, status in statuses.items() if status != 0}
            if failed:
                return self._end(context, self._cause(pids))
            if self._is_hanging():
                return self._end(context, None)
            self._tell_start()
            now_s = time.monotonic()
            if (
                self.is_started
                and self._step() != self.told_step
                and now_s - told_s >= self.config.heartbeat_s
            ):
                told_s = now_s
                self._tell_progress()
            self._wait_or_stop(ends)

    def _cause(self, pids: dict[int, int]) -> Failure | None:
        """Who failed first among those that end now. None: only echoes, so a rank that is still there is
        the cause, which holds the others up until their collective timed out."""
        time.sleep(POLL_S)  # who else ended in the same breath
        deadline_s = time.monotonic() + _CAUSE_S
        while True:
            statuses = ended(pids)
            bad = {rank: status for rank, status in statuses.items() if status != 0}
            first = first_failure(bad, reports=_reports(Path(self.job.run), bad))
            if not first.is_echo or len(statuses) == len(pids):
                return first
            if time.monotonic() > deadline_s:
                return None
            time.sleep(POLL_S)

    def _end(self, context: PContext, failure: Failure | None) -> Failure:
        """End who is left; without a known failure, dump what they do and name the one behind."""
        gone = ended(context.pids())
        alive = {rank: pid for rank, pid in context.pids().items() if rank not in gone}
        failure = failure or self._hang(alive)
        _signal(alive, signal.SIGKILL)
        if left := still_there(alive, patience_s=_DEATH_S):
            return _unkillable(left[0], after=failure)
        context.close(signal.SIGKILL)
        return failure

    def _hang(self, alive: dict[int, int]) -> Failure:
        """Of the ranks that are there, the one that the others wait for."""
        run = Path(self.job.run)
        answered = request_dumps(
            run, alive, board=self.board, send=lambda rank: _signal({rank: alive[rank]}, signal.SIGUSR2)
        )
        ranks, rows = list(alive), self.board.rows[list(alive)]
        behind = rank_behind(
            answered=[rank in answered for rank in ranks],
            steps=rows["step"].tolist(),
            phases=rows["phase"].tolist(),
            beats_s=rows["beat_s"].tolist(),
        )
        rank, step = ranks[behind], int(rows["step"][behind])
        left = f"see logs/rank{rank}.stacks and logs/rank{rank}.collectives.json"
        if rank not in answered:
            left = "it answered no signal: stopped, or waiting in the kernel"
        return Failure(rank, "hang", f"no step after {step}; {left}", exit_code=4)

    def _is_hanging(self) -> bool:
        rows = self.board.rows
        silent_s = self.silence.look(rows["beat_s"].tolist(), now_s=time.monotonic())
        phases = rows["phase"].tolist()
        return is_hang(silent_s, phases=phases, durations_s=list(self.durations_s), config=self.config)

    def _tell_start(self) -> None:
        """Once, as soon as every rank knows where it went on: the ranks may be some steps further by then."""
        firsts = self.board.rows["first_step"]
        if self.is_started or (firsts < 0).any():
            return
        self.is_started, self.told_step = True, int(firsts.min())
        self.tell("started", step=self.told_step)

    def _tell_progress(self) -> None:
        rows = self.board.rows
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
        return int(self.board.rows["step"].min())

    def _wait_or_stop(self, ends: EndsOf) -> None:
        """Sleep and listen: a word asks for a checkpoint and an end, a closed pipe ends at once."""
        if not ends.wait_or_hear(sys.stdin):
            return
        if not os.read(sys.stdin.fileno(), 4096):
            raise KeyboardInterrupt
        self.board.request_stop()

    def tell(self, kind: str, **facts: Any) -> None:
        print(json.dumps({"kind": kind, **facts}), flush=True)


def main(argument: str) -> int:
    job = Job(**json.loads(argument))
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # its handlers raise, in the middle of a start
    config = TrainConfig.model_validate(job.recipe["train"])
    for noisy in ("torch.distributed.elastic", "torch.multiprocessing"):  # what they say of an end, we say
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board"
        board = Board(path, num_ranks=job.workers)
        events = EventLog(events_of_workers(Path(job.run)), clock=SystemClock())
        limit = config.max_failures_without_progress
        memories = _memories(job.workers, config=config, events=events)
        pace = Pace(config.straggler_ratio)
        supervisor = Supervisor(job, config, board, path, events, Restarts(limit=limit), memories, pace)
        supervisor.listen()
        try:
            code = supervisor.run()
        except KeyboardInterrupt:
            code = Interrupted.exit_code
    if multiprocessing.active_children():  # Python's end would wait for a rank that nothing can end
        os._exit(code)
    return code


def _memories(workers: int, *, config: TrainConfig, events: EventLog) -> tuple[int, ...]:
    """One memory file per rank for snapshots. Workers get them by the fork."""
    if not config.snapshot_every:
        return ()
    made = [new_memory() for _ in range(workers)] if sys.platform == "linux" else [None]
    found = tuple(descriptor for descriptor in made if descriptor is not None)
    if len(found) < workers:
        events.append("warning", message="train.snapshot_every is ignored: this system has no memfd")
        return ()
    return found


def _free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unkillable(rank: int, *, after: Failure) -> Failure:
    return Failure(
        rank,
        "unkillable",
        f"SIGKILL has not ended it in {_DEATH_S:.0f} s: waiting in the kernel (before: {after.sentence()})",
        exit_code=4,
        hint="see in the kernel's log which disk or device hangs; `rsc runs resume` once the process is gone",
    )


def _signal(pids: dict[int, int], number: signal.Signals) -> None:
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _reports(run: Path, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What ended ranks wrote about why."""
    found = {}
    for rank in ranks:
        with contextlib.suppress(OSError, ValueError):
            found[rank] = json.loads(error_file(run, rank=rank).read_text())
    return found

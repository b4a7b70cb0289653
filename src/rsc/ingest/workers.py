"""Parts of a source over processes, results in order.

Processes are new ones, not forks: a fork copies the parent's locked keys and its threads' locks. A
worker gets the plan and the subject key through a pipe, never the data key, and hands columns back
through the same pipe. Each worker is driven by a thread that waits for its answer.

Not covered: the subject key passes through a pipe of the kernel; plaintext too, in both directions.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from rsc.errors import ResourceError, RscError
from rsc.ingest.answers import load_answer
from rsc.ingest.confine import source_roots
from rsc.ingest.map_part import ImportPlan, PartResult, read_part, set_aside
from rsc.ingest.parse_limits import PART_CPU_S, LimitPassed, allow_cpu, bounded_memory
from rsc.ingest.readers.source import Part
from rsc.interrupts import deaf_children
from rsc.keys.secret import SecretKey

PART_BYTES = 8 << 20  # about half a second of scanning: outweighs a pipe, small enough to show progress
DECODED = frozenset({"images", "audio", "webdataset", "mds", "parquet", "hf", "arrow"})
"""Formats that libraries in C decode: always in a worker, which has no network and limits of its own."""
_DECODER_ENDED_BY = frozenset(
    {
        signal.SIGXCPU,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGSYS,
    }
)
"""With which a file ends its decoder. Not SIGKILL: that is the machine, out of memory, or a person."""
_AHEAD = 2  # finished or running parts a process may be ahead of the one written next


def run_parts(
    plan: ImportPlan, *, first_part: int = 0, num_processes: int, subject_key: SecretKey
) -> Generator[PartResult, None, None]:
    """Results of the parts from `first_part` on, in order; text of one part is done in this process.

    A part that passes a limit (parse_limits.py) or crashes its decoder is set aside by name. Raises what
    reading and screening raise, and ResourceError when a worker dies of something else.
    """
    cut = plan.source.parts(part_bytes=plan.options.part_bytes or PART_BYTES)
    parts = _bounded(plan.selection.parts(cut))
    todo = (part for part in parts if part.number >= first_part)
    first = list(islice(todo, 2))
    everything = chain(first, todo)
    is_decoded = plan.source.kind in DECODED and plan.source_bytes > 0  # not a table in memory
    if not is_decoded and (num_processes == 1 or len(first) < 2):
        for part in everything:
            yield _read_here(part, plan=plan, subject_key=subject_key.view)
        return
    with _Workers(1 if len(first) < 2 else num_processes, plan=plan, subject_key=subject_key) as workers:
        yield from _in_order(everything, workers=workers)


def _bounded(parts: Iterable[Part]) -> Iterator[Part]:
    """Lists of archives and footers of tables are read here: in bounded memory too."""
    iterator = iter(parts)
    while True:
        with bounded_memory():
            part = next(iterator, None)
        if part is None:
            return
        yield part


def _read_here(part: Part, *, plan: ImportPlan, subject_key: memoryview) -> PartResult:
    try:
        with bounded_memory():
            return read_part(part, plan=plan, subject_key=subject_key)
    except LimitPassed as error:
        return set_aside(part, plan=plan, reason=error.message)


def _in_order(parts: Iterable[Part], *, workers: _Workers) -> Iterator[PartResult]:
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers.all:
        free.put(worker)
    with ThreadPoolExecutor(len(workers.all)) as threads:
        waiting: deque[Future[PartResult]] = deque()
        try:
            for part in parts:
                waiting.append(threads.submit(_ask, part, free=free, workers=workers))
                if len(waiting) > _AHEAD * len(workers.all):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            workers.kill()  # a thread that still waits for an answer gets the end of its pipe


def _ask(part: Part, *, free: SimpleQueue[_Worker], workers: _Workers) -> PartResult:
    worker = free.get()
    connection = worker.connection
    try:
        connection.send(part.to_send())
        answer = load_answer(connection.recv_bytes())
    except (EOFError, OSError):
        reason = worker.why_it_died()
        worker = workers.another(worker)
        return set_aside(part, plan=workers.plan, reason=reason)
    finally:
        free.put(worker)  # a dead one too: whoever waits for it must learn the same
    if isinstance(answer, RscError):
        raise answer
    return answer


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection

    def why_it_died(self) -> str:
        """What the part did to it. Raises ResourceError where it was not the part."""
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return f"it takes over {PART_CPU_S} s to read"
        if -code in _DECODER_ENDED_BY:
            return f"its decoder crashed ({signal.Signals(-code).name})"
        raise ResourceError(
            "a worker process died, most likely for want of memory; nothing was committed",
            hint="import again with --processes 1",
        )


class _Workers:
    """Processes that hold the plan, and our ends of their pipes."""

    def __init__(self, count: int, *, plan: ImportPlan, subject_key: SecretKey) -> None:
        self.all: list[_Worker] = []
        self.plan = plan
        self._subject_key = subject_key
        self._is_over = False
        self._lock = Lock()
        with deaf_children():
            for _ in range(count):
                self.all.append(_start(plan))
        for worker in self.all:
            self._brief(worker)

    def another(self, dead: _Worker) -> _Worker:
        """A new worker in the place of one that a part ended. Called by the thread that waited for it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as deaf_children, for one thread
        try:
            with self._lock:
                if self._is_over:
                    return dead
                worker = _start(self.plan)
                self.all[self.all.index(dead)] = worker
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        dead.connection.close()
        self._brief(worker)
        return worker

    def _brief(self, worker: _Worker) -> None:
        worker.connection.send(self.plan)
        worker.connection.send_bytes(self._subject_key.view)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for worker in self.all:
            worker.connection.close()

    def kill(self) -> None:
        """They hold nothing that is worth a farewell."""
        with self._lock:
            self._is_over = True
            for worker in self.all:
                worker.process.kill()
                worker.process.wait()


_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rsc.ingest.confine import confine
confine(json.loads(sys.argv[3]), reads_anything=json.loads(sys.argv[4]))
from rsc.ingest.workers import serve
serve(int(sys.argv[2]))
"""


def _start(plan: ImportPlan) -> _Worker:
    """A new Python, which imports this module from where the caller does, and no script of the caller; with
    no terminal, whose keystrokes it could read."""
    ours, theirs = Pipe()
    roots = json.dumps(source_roots([file for file in plan.source.files() if isinstance(file, Path)]))
    reads_anything = json.dumps(bool(plan.policy.models))
    program = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)]
    with theirs:
        process = subprocess.Popen(
            [*program, str(theirs.fileno()), roots, reads_anything],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return _Worker(process, ours)


def serve(descriptor: int) -> None:
    """A worker, confined before this was imported: bounded in memory and, part by part, in CPU time."""
    with Connection(descriptor) as connection, bounded_memory():
        _serve(connection)


def _serve(connection: Connection) -> None:
    """A worker's life: the plan, the key, then a part at a time until the parent goes away."""
    try:
        plan: ImportPlan = connection.recv()
        with SecretKey.from_buffer(bytearray(connection.recv_bytes())) as subject_key:
            while True:
                part = connection.recv()
                allow_cpu()
                connection.send(_answer(part, plan=plan, key=subject_key))
    except (EOFError, OSError):
        return


def _answer(part: Part, *, plan: ImportPlan, key: SecretKey) -> PartResult | RscError:
    try:
        return read_part(part, plan=plan, subject_key=key.view)
    except RscError as error:
        return error
    except OSError as error:
        return ResourceError(f"reading part {part.number} failed: {error.strerror}")
    except Exception as error:  # its words may quote the data: only its kind and place leave the worker
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return RscError(f"{type(error).__name__} at {place} in part {part.number}: this is a defect of RSC")

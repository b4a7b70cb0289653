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

from rsc.errors import DataError, ResourceError, RscError
from rsc.hardening import harden_process
from rsc.ingest.map_part import PartResult, Plan, process_part
from rsc.ingest.parse_limits import PART_CPU_S, allow_cpu, bounded_memory, leave_the_network
from rsc.ingest.readers.source import Part
from rsc.interrupts import deaf_children
from rsc.keys.secret import SecretKey

PART_BYTES = 8 << 20  # about half a second of scanning: outweighs a pipe, small enough to show progress
DECODED = frozenset({"images", "audio", "webdataset", "mds", "parquet", "hf", "arrow"})
"""Formats that libraries in C decode: always in a worker, which has no network and limits of its own."""
_AHEAD = 2  # finished or running parts a process may be ahead of the one written next


def run_parts(
    plan: Plan, *, first_part: int = 0, num_processes: int, subject_key: SecretKey
) -> Generator[PartResult, None, None]:
    """Results of the parts from `first_part` on, in order; text of one part is done in this process.

    Raises what reading and screening raise, DataError for a part that passes a limit (parse_limits.py), and
    ResourceError when a worker dies of something else.
    """
    parts = plan.selection.parts(plan.source.parts(part_bytes=plan.options.part_bytes or PART_BYTES))
    todo = (part for part in parts if part.number >= first_part)
    first = list(islice(todo, 2))
    everything = chain(first, todo)
    is_decoded = plan.source.kind in DECODED and plan.source_bytes > 0  # not a table in memory
    if not is_decoded and (num_processes == 1 or len(first) < 2):
        for part in everything:
            with bounded_memory():
                result = process_part(part, plan=plan, subject_key=subject_key.view)
            yield result
        return
    with _Workers(1 if len(first) < 2 else num_processes, plan=plan, subject_key=subject_key) as workers:
        yield from _in_order(everything, workers=workers)


def _in_order(parts: Iterable[Part], *, workers: _Workers) -> Iterator[PartResult]:
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers.all:
        free.put(worker)
    with ThreadPoolExecutor(len(workers.all)) as threads:
        waiting: deque[Future[PartResult]] = deque()
        try:
            for part in parts:
                waiting.append(threads.submit(_ask, part, free=free))
                if len(waiting) > _AHEAD * len(workers.all):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            workers.kill()  # a thread that still waits for an answer gets the end of its pipe


def _ask(part: Part, *, free: SimpleQueue[_Worker]) -> PartResult:
    worker = free.get()
    connection = worker.connection
    try:
        connection.send(part.to_send())
        answer = connection.recv()
    except (EOFError, OSError):
        raise worker.why_it_died(part) from None
    finally:
        free.put(worker)  # a dead one too: whoever waits for it must learn the same
    if isinstance(answer, RscError):
        raise answer
    assert isinstance(answer, PartResult)
    return answer


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection

    def why_it_died(self, part: Part) -> RscError:
        if self.process.wait() == -signal.SIGXCPU:
            return DataError(
                f"part {part.number} of the source takes over {PART_CPU_S} s to read; nothing was committed",
                hint="a file in it is made to be slow, or is damaged: import the others without it",
            )
        return ResourceError(
            "a worker process died, most likely for want of memory; nothing was committed",
            hint="import again with --processes 1",
        )


class _Workers:
    """Processes that hold the plan, and our ends of their pipes."""

    def __init__(self, count: int, *, plan: Plan, subject_key: SecretKey) -> None:
        self.all: list[_Worker] = []
        with deaf_children():
            for _ in range(count):
                self.all.append(_start())
        for worker in self.all:
            worker.connection.send(plan)
            worker.connection.send_bytes(subject_key.view)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for worker in self.all:
            worker.connection.close()

    def kill(self) -> None:
        """They hold nothing that is worth a farewell."""
        for worker in self.all:
            worker.process.kill()
            worker.process.wait()


_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rsc.ingest.workers import serve
serve(int(sys.argv[2]))
"""


def _start() -> _Worker:
    """A new Python, which imports this module from where the caller does, and no script of the caller."""
    ours, theirs = Pipe()
    command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    return _Worker(process, ours)


def serve(descriptor: int) -> None:
    """Entry of a worker: hardened, out of the network, bounded in memory and, part by part, in CPU time."""
    harden_process()
    leave_the_network()
    with Connection(descriptor) as connection, bounded_memory():
        _serve(connection)


def _serve(connection: Connection) -> None:
    """A worker's life: the plan, the key, then a part at a time until the parent goes away."""
    try:
        plan: Plan = connection.recv()
        with SecretKey.from_buffer(bytearray(connection.recv_bytes())) as subject_key:
            while True:
                part = connection.recv()
                allow_cpu()
                connection.send(_answer(part, plan=plan, key=subject_key))
    except (EOFError, OSError):
        return


def _answer(part: Part, *, plan: Plan, key: SecretKey) -> PartResult | RscError:
    try:
        return process_part(part, plan=plan, subject_key=key.view)
    except RscError as error:
        return error
    except MemoryError:
        return DataError(
            f"part {part.number} of the source takes more memory than reading may use; nothing was committed",
            hint="a decompression bomb, or records that are too large: split the file",
        )
    except OSError as error:
        return ResourceError(f"reading part {part.number} failed: {error.strerror}")
    except Exception as error:  # its words may quote the data: only its kind and place leave the worker
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return RscError(f"{type(error).__name__} at {place} in part {part.number}: this is a defect of RSC")

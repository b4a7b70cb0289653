"""Parts of a source over processes, results in order.

Processes are spawned, not forked: a fork copies the parent's locked keys and its threads' locks. A
worker gets the plan and the subject key through a pipe, never the data key, and hands columns back
through the same pipe. Each worker is driven by a thread that waits for its answer.

Not covered: the subject key passes through a pipe of the kernel; plaintext too, in both directions.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue

from rsc.errors import ResourceError, RscError
from rsc.hardening import harden_process
from rsc.ingest.map_part import PartResult, Plan, process_part
from rsc.ingest.readers.source import Part
from rsc.interrupts import deaf_children
from rsc.keys.secret import SecretKey

PART_BYTES = 8 << 20  # about half a second of scanning: outweighs a pipe, small enough to show progress
_AHEAD = 2  # finished or running parts a process may be ahead of the one written next


def run_parts(
    plan: Plan, *, first_part: int = 0, num_processes: int, subject_key: SecretKey
) -> Generator[PartResult, None, None]:
    """Results of the parts from `first_part` on, in order; a source of one part is done in this process.

    Raises what reading and screening raise, and ResourceError when a worker dies.
    """
    parts = plan.source.parts(part_bytes=plan.options.part_bytes or PART_BYTES)
    todo = (part for part in parts if part.number >= first_part)
    first = list(islice(todo, 2))
    everything = chain(first, todo)
    if num_processes == 1 or len(first) < 2:
        for part in everything:
            yield process_part(part, plan=plan, subject_key=subject_key.view)
        return
    with _Workers(num_processes, plan=plan, subject_key=subject_key) as workers:
        yield from _in_order(everything, workers=workers)


def _in_order(parts: Iterable[Part], *, workers: _Workers) -> Iterator[PartResult]:
    free: SimpleQueue[Connection] = SimpleQueue()
    for connection in workers.connections:
        free.put(connection)
    with ThreadPoolExecutor(len(workers.connections)) as threads:
        waiting: deque[Future[PartResult]] = deque()
        try:
            for part in parts:
                waiting.append(threads.submit(_ask, part, free=free))
                if len(waiting) > _AHEAD * len(workers.connections):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            workers.kill()  # a thread that still waits for an answer gets the end of its pipe


def _ask(part: Part, *, free: SimpleQueue[Connection]) -> PartResult:
    connection = free.get()
    try:
        connection.send(part.to_send())
        answer = connection.recv()
    except (EOFError, OSError):
        raise ResourceError(
            "a worker process died, most likely for want of memory; nothing was committed",
            hint="import again with --processes 1",
        ) from None
    finally:
        free.put(connection)  # a dead one too: whoever waits for it must learn the same
    if isinstance(answer, RscError):
        raise answer
    assert isinstance(answer, PartResult)
    return answer


class _Workers:
    """Processes that hold the plan, and our ends of their pipes."""

    def __init__(self, count: int, *, plan: Plan, subject_key: SecretKey) -> None:
        self.connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        self._start(count)
        for connection in self.connections:
            connection.send(plan)
            connection.send_bytes(subject_key.view)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for connection in self.connections:
            connection.close()

    def kill(self) -> None:
        """They hold nothing that is worth a farewell."""
        for process in self._processes:
            process.kill()
            process.join()

    def _start(self, count: int) -> None:
        context = get_context("spawn")
        with deaf_children():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self.connections.append(ours)


def _serve(connection: Connection) -> None:
    """A worker's life: the plan, the key, then a part at a time until the parent goes away."""
    harden_process()
    try:
        plan: Plan = connection.recv()
        with SecretKey.from_buffer(bytearray(connection.recv_bytes())) as subject_key:
            while True:
                connection.send(_answer(connection.recv(), plan=plan, key=subject_key))
    except (EOFError, OSError):
        return


def _answer(part: Part, *, plan: Plan, key: SecretKey) -> PartResult | RscError:
    try:
        return process_part(part, plan=plan, subject_key=key.view)
    except RscError as error:
        return error
    except OSError as error:
        return ResourceError(f"reading part {part.number} failed: {error.strerror}")
    except Exception as error:  # its words may quote the data: only its kind and place leave the worker
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return RscError(f"{type(error).__name__} at {place} in part {part.number}: this is a defect of RSC")

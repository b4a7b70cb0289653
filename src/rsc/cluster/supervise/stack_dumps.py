"""What a rank was doing when it is about to be ended: its Python stacks and its last collectives.

    supervisor   asks on the board, sends SIGUSR2, waits until every rank has answered
    rank         faulthandler writes all threads to logs/rank<r>.stacks, from the signal itself; a thread
                 writes the flight recorder's last collectives to logs/rank<r>.collectives.json

Reading a worker from outside (py-spy, gdb) is shut on purpose: it holds keys, so its memory is not dumpable.

Not covered: native frames; collectives of a rank that holds the interpreter's lock for ever.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rsc.cluster.supervise.heartbeats import Board

_LOOK_S = 0.1
_PATIENCE_S = 5.0  # for ranks to answer; a rank that a signal cannot reach has no stacks to give


def stacks_file(run: Path, *, rank: int) -> Path:
    return run / "logs" / f"rank{rank}.stacks"


def collectives_file(run: Path, *, rank: int) -> Path:
    return run / "logs" / f"rank{rank}.collectives.json"


def answer_dumps(run: Path, *, rank: int, board: Board, collectives: Callable[[], bytes]) -> None:
    """In a worker: be ready to answer. The thread costs ten looks at shared memory a second.

    `collectives`: the newest of this rank, as JSON.
    """
    stacks = stacks_file(run, rank=rank).open("a")
    faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)
    threading.Thread(
        target=_write_collectives,
        args=(collectives_file(run, rank=rank), board, collectives),
        name="postmortem",
        daemon=True,
    ).start()


def _write_collectives(path: Path, board: Board, collectives: Callable[[], bytes]) -> None:
    while not board.dump_requested:
        time.sleep(_LOOK_S)
    staged = path.with_suffix(".new")
    staged.write_bytes(collectives())
    staged.replace(path)


def request_dumps(
    run: Path,
    ranks: Iterable[int],
    *,
    board: Board,
    send: Callable[[int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> set[int]:
    """In the supervisor: have ranks dump, and return those that have, when all have or after 5 s. `send`
    signals a rank."""
    before = {rank: _size(run, rank) for rank in ranks}
    for rank in before:
        collectives_file(run, rank=rank).unlink(missing_ok=True)
    board.request_dump()
    for rank in before:
        send(rank)
    waited_s = 0.0
    while (answered := _answered(run, before)) != set(before) and waited_s < _PATIENCE_S:
        sleep(_LOOK_S)
        waited_s += _LOOK_S
    return answered


def _answered(run: Path, before: Mapping[int, int]) -> set[int]:
    """A stack file is whole when it grew and ends its last line; faulthandler writes it piece by piece."""
    return {
        rank
        for rank, size in before.items()
        if _size(run, rank) > size
        and stacks_file(run, rank=rank).read_bytes().endswith(b"\n")
        and collectives_file(run, rank=rank).exists()
    }


def _size(run: Path, rank: int) -> int:
    path = stacks_file(run, rank=rank)
    return path.stat().st_size if path.exists() else 0

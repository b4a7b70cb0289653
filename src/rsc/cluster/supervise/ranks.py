"""The processes of one node's ranks in one start: forked, watched by pid, reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import get_context

from rsc.cluster.supervise.exits import ended, still_there
from rsc.cluster.supervise.spec import Ending, Entry, RankSpec


class Ranks:
    """Forked where the system can: a rank then starts in tens of milliseconds, with torch imported."""

    def __init__(
        self,
        spec_of: Callable[[socket.socket], RankSpec],
        *,
        ranks: range,
        entry: Entry,
        private: Sequence[socket.socket] = (),
    ) -> None:
        """`spec_of` is given a rank's end of the sockets by which it reaches this process (`sockets`).
        `private` are sockets of this process that no rank may hold."""
        context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
        self._processes = {}
        self.sockets: dict[int, socket.socket] = {}
        try:
            for local_rank, rank in enumerate(ranks):
                ours, theirs = socket.socketpair()
                with theirs:
                    self.sockets[rank] = ours
                    inherited = [*private, *self.sockets.values()] if sys.platform == "linux" else []
                    arguments = (entry, local_rank, spec_of(theirs), inherited)
                    process = context.Process(target=_run, args=arguments, name=f"rank{rank}")
                    process.start()
                self._processes[rank] = process
        except BaseException:
            self.signal(signal.SIGKILL)
            self.close()
            raise

    def close(self) -> None:
        """Of the sockets; no rank is asked any more."""
        for each in self.sockets.values():
            each.close()

    @property
    def pids(self) -> dict[int, int]:
        """By rank."""
        return {rank: process.pid for rank, process in self._processes.items() if process.pid is not None}

    def exit_codes(self) -> dict[int, int]:
        """Of the ranks that have ended; negative for signals."""
        return ended(self.pids)

    def signal(self, number: signal.Signals, *, ranks: Iterable[int] | None = None) -> None:
        """Send to some ranks, or to all."""
        pids = self.pids
        for rank in pids if ranks is None else ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[rank], number)

    def end(self, *, ranks: Iterable[int], patience_s: float) -> list[int]:
        """SIGKILL these, and reap all. Returns those of them that are still there after that time."""
        alive = {rank: self.pids[rank] for rank in ranks}
        self.signal(signal.SIGKILL, ranks=alive)
        if left := still_there(alive, patience_s=patience_s):
            return left
        self.reap()
        return []

    def reap(self) -> None:
        """Take note of the ends of all ranks, which have ended."""
        for process in self._processes.values():
            process.join()


def _run(entry: Entry, local_rank: int, spec: RankSpec, inherited: list[socket.socket]) -> None:
    for each in inherited:  # which the fork copied
        each.close()
    sys.exit(entry(local_rank, spec).exit_code)


def ending_of(exit_codes: Iterable[int]) -> Ending:
    """Of ranks that all ended without a failure: they leave together, so one that was asked to leave is
    enough."""
    return Ending.REQUEUE if Ending.REQUEUE.exit_code in exit_codes else Ending.FINISHED


def is_failure(exit_code: int) -> bool:
    return exit_code not in {ending.exit_code for ending in Ending}

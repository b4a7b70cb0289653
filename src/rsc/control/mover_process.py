"""The controller's side of data in an object store: starts the mover (store/mover.py) and keeps it running.

The controller makes the listening socket and keeps it, so workers that ask while a mover is being replaced
wait for the next one. A mover that ends again and again is given up: the socket closes, and every worker that
asks gets an error with that reason, which ends the run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType

from rsc.clock import Clock, timestamp
from rsc.config import Workspace
from rsc.events import EventLog
from rsc.loader.config import DataConfig
from rsc.release.lifecycle.retention import retained_until
from rsc.runs.folder import RunFolder
from rsc.store.cache.node_cache import NodeCache
from rsc.store.dataset import Dataset
from rsc.store.mover import MoverJob

_BACKLOG = 512  # connections of all ranks, which come back together
_STEADY_S = 60.0  # a mover that ran so long was not broken from the start
_MOST_IN_A_ROW = 4


def fetching_for(
    run: RunFolder,
    data: DataConfig,
    workspace: Workspace,
    *,
    path: Path,
    say: Callable[[str], None],
    clock: Clock,
) -> AbstractContextManager[Fetching | None]:
    """Who brings the run's data to this node, listening at `path`; nobody where the data lies in a folder."""
    if isinstance(workspace.bulk, Path):
        return nullcontext()
    datasets = [Dataset.open(workspace.bulk, name=each.name, version=each.version) for each in data.sets]
    job = MoverJob(
        location=workspace.bulk,
        cache=str(workspace.cache),
        limit_bytes=workspace.cache_bytes,
        connections=data.connections,
        sets=tuple((each.name, each.version, timestamp(retained_until(each))) for each in datasets),
    )
    NodeCache(workspace.cache, limit_bytes=job.limit_bytes).sweep()
    return Fetching(job, path=path, events=run.events(clock=clock), say=say, clock=clock)


class Fetching:
    """A running mover. Use as a context manager."""

    def __init__(
        self, job: MoverJob, *, path: Path, events: EventLog, say: Callable[[str], None], clock: Clock
    ) -> None:
        self._job = job
        self._path = path
        self._events = events
        self._say = say
        self._clock = clock
        self._is_closing = threading.Event()
        self._listener = _listen(path)
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="mover", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Of the mover that runs now."""
        return self._process.pid

    def close(self) -> None:
        """End the mover; what it fetched stays in the cache."""
        self._is_closing.set()
        self._process.kill()
        self._watcher.join()
        self._give_up()
        self._events.close()

    def __enter__(self) -> Fetching:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        """In the caller's environment, which has the credentials; away from the terminal's Ctrl-C."""
        descriptor = self._listener.fileno()
        command = [sys.executable, "-m", "rsc.store.mover", self._job.to_json(), str(descriptor)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[descriptor], start_new_session=True
        )
        self._events.append("mover_started", pid=process.pid)
        return process

    def _watch(self) -> None:
        in_a_row = 0
        while True:
            began_s = self._clock.monotonic_s()
            code = self._process.wait()
            if self._is_closing.is_set():
                return
            is_steady = self._clock.monotonic_s() - began_s >= _STEADY_S
            in_a_row = 1 if is_steady else in_a_row + 1
            self._events.append("mover_lost", code=code)
            if in_a_row >= _MOST_IN_A_ROW:
                self._say(f"the mover, which fetches data, ended {in_a_row} times in a row (code {code})")
                self._give_up()
                return
            try:
                self._process = self._start()
            except OSError as error:  # no memory or no processes left: better told than waited for
                self._say(f"the mover, which fetches data, could not be started again: {error.strerror}")
                self._give_up()
                return
            self._say(f"the mover, which fetches data, ended (code {code}): started again")
            if self._is_closing.is_set():  # `close` may have killed the one before
                self._process.kill()

    def _give_up(self) -> None:
        """Whoever asks from now on is refused."""
        self._path.unlink(missing_ok=True)
        self._listener.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener

"""The events that ranks and their supervisors write: one file a node.

    runs/<id>/logs/events.jsonl          a job's supervisor or controller, and its ranks where it has one node
    runs/<id>/logs/events/<node>.jsonl   the agent and the ranks of one node among several

Lines of several processes keep apart in one file on one machine only; over a shared file system two nodes
would overwrite each other's (rsc/events.py). All of it may be planted: it is read as what others wrote.
"""

from __future__ import annotations

import heapq
from operator import itemgetter
from pathlib import Path
from typing import Any

from rsc.events import EventTail
from rsc.untrusted import UntrustedFolder

_FOLDER = "logs/events"


def events_of_workers(run: Path, *, node: str = "") -> Path:
    """Where the ranks and the agent of a node write; without a name, what speaks for the whole job."""
    return run / _FOLDER / f"{node}.jsonl" if node else run / "logs" / "events.jsonl"


def worker_event_files(run: Path) -> list[Path]:
    """Every file of events that there may be now. Raises DataError for a link or a swamped folder."""
    nodes = UntrustedFolder(run).children(_FOLDER)
    names = [name.removesuffix(".jsonl") for name in nodes if name.endswith(".jsonl")]
    return [events_of_workers(run), *(events_of_workers(run, node=name) for name in names if name)]


class WorkerEventTail:
    """What workers of any node append from now on, also those of nodes that join later."""

    def __init__(self, run: Path) -> None:
        """Raises DataError where something else lies in the place of a file or of the folder."""
        self._run = run
        self._tails = {path: EventTail(path, beneath=run) for path in worker_event_files(run)}

    def fresh(self) -> list[dict[str, Any]]:
        """The events whose lines were finished since the last call, by time. Raises as at the start."""
        for path in worker_event_files(self._run):
            if path not in self._tails:
                self._tails[path] = EventTail(path, beneath=self._run, is_new=True)
        found = [tail.fresh() for tail in self._tails.values()]
        return list(heapq.merge(*found, key=itemgetter("time")))

"""What happened, as JSON lines: one object a line, appended whole, readable while a run goes on.

Ranks and controllers append; nobody edits. A line has `time`, `kind` and the facts of that kind.
A crash can cut the last line short, so a reader skips what does not parse at the very end and
nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsc.clock import Clock, timestamp
from rsc.errors import IntegrityError


class EventLog:
    """Appends to one file. Each event is a single `write` on an O_APPEND descriptor, so lines of
    several processes do not mix (up to PIPE_BUF on local file systems; never share one over NFS)."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, kind: str, **facts: Any) -> None:
        """Write one event. Facts must be JSON values and hold no personal text and no key."""
        line = json.dumps(
            {"time": timestamp(self._clock.now()), "kind": kind, **facts}, separators=(",", ":")
        )
        os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file in written order. Raises IntegrityError for a broken line in mid-file."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise IntegrityError(f"{path.name} line {number} is not JSON", outcome="frame") from None


class EventTail:
    """What other processes append to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def fresh(self) -> list[dict[str, Any]]:
        """The events whose lines were finished since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [json.loads(line) for line in whole.split(b"\n") if line]

"""What happened, as JSON lines: one object a line, appended whole, readable while a run goes on.

Ranks and controllers append; nobody edits. A line has `time`, `kind` and the facts of that kind.
A crash or a full disk can cut a line short; the next one begins on a line of its own, and readers skip
what does not parse. Telling never ends what is told about: lines that a full disk does not take wait in
memory for room.

Not covered: lines that still wait when their process ends.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rsc.clock import Clock, timestamp

_TAIL_BYTES = 1 << 16  # 100 lines of metrics and more
_MOST_WAITING = 4096  # lines that wait for room; 2 MB of metrics or events


class LineFile:
    """Appends whole lines to one file. Each is a single `write` on an O_APPEND descriptor, so lines of
    several processes do not mix (on local file systems; never share one over NFS)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        size = os.fstat(self._fd).st_size
        self._is_cut = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def append(self, line: str) -> None:
        """Write one line, after those that a full disk did not take. Raises OSError for any other fault."""
        self._waiting.append(line.encode() + b"\n")
        while self._waiting and self._write(self._waiting[0]):
            self._waiting.popleft()

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, line: bytes) -> bool:
        data = b"\n" + line if self._is_cut else line
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        self._is_cut = written < len(data)
        return written >= len(data) - 1  # without its newline a line is whole


class EventLog:
    """The events of one run, or of any other thing that tells some."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._file = LineFile(path)

    def append(self, kind: str, **facts: Any) -> None:
        """Write one event. Facts must be JSON values and hold no personal text and no key."""
        line = json.dumps(
            {"time": timestamp(self._clock.now()), "kind": kind, **facts}, separators=(",", ":")
        )
        self._file.append(line)

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file in written order, without lines that were cut; none where there is no file."""
    if path.exists():
        yield from _whole(path.read_bytes().split(b"\n"))


def last_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in the last 64 KiB of a file, in written order; none where there is no file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
        file.seek(start)
        lines = file.read().split(b"\n")
    return list(_whole(lines[1:] if start else lines))


def is_event(line: Mapping[str, Any]) -> bool:
    """Whether it has a time and a kind. Code that trains on private data writes events too, and may write
    anything."""
    return isinstance(line.get("time"), str) and isinstance(line.get("kind"), str)


def _whole(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


class EventTail:
    """What other processes append to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def fresh(self) -> list[dict[str, Any]]:
        """The events whose lines were finished since the last call; no other lines."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return list(filter(is_event, _whole(whole.split(b"\n"))))

"""What happened, as JSON lines: one object a line, appended whole, readable while a run goes on.

Ranks and controllers append; nobody edits. A line has `time`, `kind` and the facts of that kind.
A crash or a full disk can cut a line short; the next one begins on a line of its own, and readers skip
what does not parse. Telling never ends what is told about: lines that a full disk does not take wait in
memory for room.

Files are read beneath a folder that the caller trusts (rsc/untrusted.py): what trains on private data writes
events too, and may put anything in their place.

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
from typing import Any, BinaryIO

from rsc.clock import Clock, parse_timestamp, timestamp
from rsc.untrusted import UntrustedFolder

_TAIL_BYTES = 1 << 16  # 100 lines of metrics and more
_MOST_WAITING = 4096  # lines that wait for room; 2 MB of metrics or events
_LIMIT_BYTES = 1 << 30  # of a file that is read whole, line by line: metrics of three million steps
_LINE_BYTES = 1 << 20  # longer lines are none of ours
_MOST_FRESH_BYTES = 1 << 20  # that a tail takes in at a time
_LONGEST_KIND = 40


class LineFile:
    """Appends whole lines to one file. Each is a single `write` on an O_APPEND descriptor, so lines of
    several processes do not mix (on local file systems; never share one over NFS)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = UntrustedFolder(path.parent).open_to_append(path.name)
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


def read_lines(
    path: Path, *, beneath: Path | None = None, limit_bytes: int = _LIMIT_BYTES
) -> Iterator[dict[str, Any]]:
    """The objects of a file in written order, without lines that were cut; none where there is no file.

    `beneath` is the folder above it that only trusted code writes; its own folder by default. One line is in
    memory at a time. Raises DataError for a link, a FIFO, a device, or a file above the limit.
    """
    folder, name = _place(path, beneath)
    try:
        fd = folder.open(name)
    except FileNotFoundError:
        return
    with os.fdopen(fd, "rb") as file:
        folder.require_at_most(os.fstat(fd).st_size, limit_bytes, path=name)
        yield from _whole(_short_lines(file))


def last_lines(path: Path, *, beneath: Path | None = None) -> list[dict[str, Any]]:
    """The objects in the last 64 KiB of a file, in written order; none where there is no file."""
    folder, name = _place(path, beneath)
    try:
        data, is_whole = folder.read_end(name, size_bytes=_TAIL_BYTES)
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    return list(_whole(lines if is_whole else lines[1:]))


def is_event(line: Mapping[str, Any]) -> bool:
    """Whether it has a time and a kind. Code that trains on private data writes events too, and may write
    anything."""
    time, kind = line.get("time"), line.get("kind")
    if not isinstance(time, str) or not isinstance(kind, str) or len(kind) > _LONGEST_KIND:
        return False
    try:
        parse_timestamp(time)
    except (ValueError, OverflowError):
        return False
    return True


def _place(path: Path, beneath: Path | None) -> tuple[UntrustedFolder, str]:
    root = path.parent if beneath is None else beneath
    return UntrustedFolder(root), path.relative_to(root).as_posix()


def _short_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file but those longer than any of ours: a sparse file is one line of zeros."""
    is_rest = False
    while line := file.readline(_LINE_BYTES):
        ends = line.endswith(b"\n")
        if not is_rest and (ends or len(line) < _LINE_BYTES):
            yield line
        is_rest = not ends


def _whole(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


class EventTail:
    """What other processes append to a file from now on."""

    def __init__(self, path: Path, *, beneath: Path | None = None, is_new: bool = False) -> None:
        """With `is_new` all that it holds is fresh. Raises DataError for a link, a FIFO or a device."""
        self._folder, self._name = _place(path, beneath)
        self._offset = 0 if is_new else self._size()

    def fresh(self) -> list[dict[str, Any]]:
        """The events whose lines were finished since the last call. Raises as at the start."""
        try:
            fd = self._folder.open(self._name)
        except FileNotFoundError:
            return []
        try:
            data = os.pread(fd, _MOST_FRESH_BYTES, self._offset)
        finally:
            os.close(fd)
        whole, newline, rest = data.rpartition(b"\n")
        is_too_long = not newline and len(rest) == _MOST_FRESH_BYTES  # no line of ours: go past it
        self._offset += len(rest) if is_too_long else len(whole) + len(newline)
        return list(filter(is_event, _whole(whole.split(b"\n"))))

    def _size(self) -> int:
        try:
            fd = self._folder.open(self._name)
        except FileNotFoundError:
            return 0
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

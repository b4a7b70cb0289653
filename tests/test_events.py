"""Lines that a full disk or a crash cut: what came whole is read, what waited comes later."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rsc.events import EventLog, EventTail, LineFile, read_lines


class Disk:
    """Takes so many bytes more, as a file system does that fills up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr("rsc.events.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


@pytest.mark.parametrize("room", range(20))
def test_lines_that_met_a_full_disk_come_when_there_is_room(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, room=room)
    path = tmp_path / "lines.jsonl"
    file = LineFile(path)
    for number in range(3):
        file.append(f'{{"a":{number}}}')
    assert list(read_lines(path)) == [{"a": number} for number in range((room + 1) // 8)]
    disk.room = 1000
    file.append('{"a":3}')
    assert list(read_lines(path)) == [{"a": number} for number in range(4)]
    file.close()


def test_another_fault_than_a_full_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = LineFile(tmp_path / "lines.jsonl")
    monkeypatch.setattr("rsc.events.os.write", broken)
    with pytest.raises(OSError, match="Input/output"):
        file.append("{}")


def test_a_line_cut_by_a_crash_costs_no_later_line(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind":"first"}\n{"kind":"cu')
    tail = EventTail(path)
    events = EventLog(path, clock=clock)
    events.append("next")
    assert [event["kind"] for event in read_lines(path)] == ["first", "next"]
    assert [event["kind"] for event in tail.fresh()] == ["next"]
    events.close()

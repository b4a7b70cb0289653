from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsc.clock import SystemClock
from rsc.control.mover_process import Fetching
from rsc.errors import ResourceError
from rsc.events import EventLog
from rsc.store.cache.mover_client import MoverClient
from rsc.store.mover import MoverJob

JOB = MoverJob("s3://nowhere", "/nowhere", limit_bytes=1 << 30, connections=1, sets=())


@pytest.fixture
def path() -> Iterator[Path]:
    """A short one: addresses of unix sockets are."""
    with tempfile.TemporaryDirectory(prefix="rsc-") as name:
        yield Path(name) / "mover.sock"


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a shell script take the mover's place."""

    def replace(script: str) -> None:
        program = tmp_path / "mover"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))

    return replace


def events_of(path: Path, kind: str) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def wait_for(path: Path, kind: str, *, count: int) -> list[dict[str, Any]]:
    while len(found := events_of(path, kind)) < count:
        time.sleep(0.01)
    return found


def fetching(path: Path, *, events: Path, said: list[str]) -> Fetching:
    log = EventLog(events, clock=SystemClock())
    return Fetching(JOB, path=path, events=log, say=said.append, clock=SystemClock())


def test_a_mover_that_is_killed_is_started_again_on_the_same_socket(
    path: Path, tmp_path: Path, pretend: Callable[[str], None]
) -> None:
    pretend("read line")  # until its stdin closes
    said: list[str] = []
    events = tmp_path / "events.jsonl"
    with fetching(path, events=events, said=said) as running:
        os.kill(running.pid, signal.SIGKILL)
        first, second = wait_for(events, "mover_started", count=2)
        assert first["pid"] != second["pid"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
            worker.connect(str(path))
    assert [event["code"] for event in events_of(events, "mover_lost")] == [-signal.SIGKILL]
    assert said == ["the mover, which fetches data, ended (code -9): started again"]
    assert not path.exists()


def test_closing_while_a_mover_is_being_replaced_leaves_none(
    path: Path, tmp_path: Path, pretend: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("read line")
    running = fetching(path, events=tmp_path / "events.jsonl", said=[])
    start, is_replacing = running._start, threading.Event()

    def start_late() -> subprocess.Popen[bytes]:
        process = start()
        is_replacing.set()
        running._is_closing.wait()
        time.sleep(0.2)  # `close` has killed the mover before this one
        return process

    monkeypatch.setattr(running, "_start", start_late)
    os.kill(running.pid, signal.SIGKILL)
    is_replacing.wait()
    closing = threading.Thread(target=running.close, daemon=True)
    closing.start()
    closing.join(60)
    is_closed = not closing.is_alive()
    running._process.kill()
    assert is_closed


def test_a_mover_that_ends_again_and_again_is_given_up_and_who_asks_is_told(
    path: Path, tmp_path: Path, pretend: Callable[[str], None]
) -> None:
    pretend("exit 4")
    said: list[str] = []
    events = tmp_path / "events.jsonl"
    with fetching(path, events=events, said=said):
        with pytest.raises(ResourceError, match="is gone"):  # waits for the next mover until there is none
            MoverClient(path).ask("children", folder="posts")
        wait_for(events, "mover_lost", count=4)
    assert said[-1] == "the mover, which fetches data, ended 4 times in a row (code 4)"
    assert len(events_of(events, "mover_started")) == 4


def test_a_mover_that_cannot_be_started_again_is_given_up(
    path: Path, tmp_path: Path, pretend: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("read line")
    said: list[str] = []
    with fetching(path, events=tmp_path / "events.jsonl", said=said) as running:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
        os.kill(running.pid, signal.SIGKILL)
        while path.exists():
            time.sleep(0.01)
    assert said == ["the mover, which fetches data, could not be started again: No such file or directory"]

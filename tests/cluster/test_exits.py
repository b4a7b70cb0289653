from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsc.cluster.supervise.exits import EndsOf, ended, still_there


@pytest.fixture
def pipe():
    read, write = os.pipe()
    with os.fdopen(read) as stream:
        yield stream, write
    os.close(write)


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def test_an_end_wakes_who_waits_and_is_left_to_the_parent(pipe) -> None:
    stream, _ = pipe
    with start("raise SystemExit(3)") as process, EndsOf([process.pid]) as ends:
        deadline_s = time.monotonic() + 60
        while not ended({7: process.pid}) and time.monotonic() < deadline_s:
            assert not ends.wait([stream.fileno()])
        assert ended({7: process.pid}) == {7: 3}
        assert still_there({7: process.pid}, patience_s=0) == []
        assert process.wait() == 3


def test_words_are_heard_while_ranks_run_and_after(pipe) -> None:
    stream, write = pipe
    with start("input()") as process, EndsOf([process.pid]) as ends:
        assert not ends.wait([stream.fileno()])
        assert still_there({0: process.pid}, patience_s=0) == [0]
        os.write(write, b"stop\n")
        assert ends.wait([stream.fileno()])
        process.communicate(b"\n")
        assert ends.wait([stream.fileno()])
        stream.readline()
        assert not ends.wait([stream.fileno()])


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptors_are_left(pipe) -> None:
    stream, _ = pipe
    before = len(list(Path("/proc/self/fd").iterdir()))
    processes = [start("input()") for _ in range(2)]
    with EndsOf(process.pid for process in processes) as ends:
        processes[0].communicate(b"\n")
        ends.wait([stream.fileno()])
    processes[1].communicate(b"\n")
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_without_the_kernels_word_it_looks_often(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = pipe
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    with start("raise SystemExit(3)") as process, EndsOf([process.pid]) as ends:
        while not ended({0: process.pid}):
            assert not ends.wait([stream.fileno()])
        assert process.wait() == 3

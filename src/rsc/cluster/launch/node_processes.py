"""Starts the agents of a job's nodes as children: here, or through a command such as `srun` or `ip netns`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rsc.cluster.rendezvous.channel import write_secret

_END_S = 5.0


@dataclass(frozen=True)
class JobNode:
    name: str
    prefix: tuple[str, ...] = ()
    """What a command begins with so that it runs on this node; empty for this machine."""
    address: str = "127.0.0.1"
    """Of the node: the job's controller listens on the way to it."""
    is_elsewhere: bool = False
    """Whether it is another machine: its ranks ask a key agent there (control/node.py)."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls(record["name"], tuple(record["prefix"]), record["address"], record["is_elsewhere"])

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class NodeProcesses:
    nodes: Sequence[JobNode]
    argv: Sequence[str]
    """Of an agent; its node's name is added."""
    secret: bytes
    most_starts: int
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _starts: dict[str, int] = field(default_factory=dict)
    _leaving: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Commands that were asked to end what they started elsewhere."""

    def start_all(self) -> None:
        for node in self.nodes:
            self._start(node)

    def is_coming(self, node: str) -> bool:
        """Whether an agent of that node may still join; starts one again that has ended, within bounds."""
        if (process := self._running.get(node)) is not None and process.poll() is None:
            return True
        if self._starts.get(node, 0) >= self.most_starts:
            return False
        self._start(next(each for each in self.nodes if each.name == node))
        return True

    def end(self, node: str) -> None:
        if (process := self._running.pop(node, None)) is None:
            return
        if next(each for each in self.nodes if each.name == node).is_elsewhere:
            process.terminate()  # `srun` ends its step then, which it cannot do once it is killed
            self._leaving.append(process)
        else:
            _end(process)

    def wait_or_end_all(self) -> None:
        """Those that were sent home have some seconds."""
        for process in (*self._running.values(), *self._leaving):
            try:
                process.wait(timeout=_END_S)
            except subprocess.TimeoutExpired:
                _end(process)

    def _start(self, node: JobNode) -> None:
        """The secret goes by stdin, which no other process can read; agents write words on our stderr."""
        self._starts[node.name] = self._starts.get(node.name, 0) + 1
        process = subprocess.Popen(
            [*node.prefix, *self.argv, node.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running[node.name] = process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; `is_coming` sees that
            process.stdin.write(write_secret(self.secret))
            process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

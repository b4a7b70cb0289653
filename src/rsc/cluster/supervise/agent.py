"""A node's agent: starts the ranks of its node when the job says so, tells what becomes of them, ends them.

    agent -> job    here, started, rows, ended, dumped, gone, set KEY, ask KEY, leave, alive
    job -> agent    start, end, dump, stop, value KEY, alive, quit

It decides nothing but one thing: where it has not heard of the job for so long that the job may have given
this node up and started its ranks elsewhere, it ends them (a fence), so no rank trains or writes twice.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rsc.cluster.rendezvous.interfaces import interface_of
from rsc.cluster.rendezvous.key_value import KeyConflict
from rsc.cluster.rendezvous.member import Member
from rsc.cluster.rendezvous.message import Message
from rsc.cluster.supervise.local_node import LocalNode
from rsc.cluster.supervise.ranks import is_failure
from rsc.cluster.supervise.spec import Placement
from rsc.errors import DataError, ResourceError

FENCE_SHARE = 0.75
"""Of the silence after which the job gives a node up: until then the node has ended its ranks."""
_SIGNS = 10  # of life in that time
_ROWS_S = 0.2


@dataclass
class Agent:
    node: LocalNode
    member: Member
    name: str
    silence_s: float
    now_s: Callable[[], float] = time.monotonic
    attempt: str = ""
    heard_s: float = 0.0
    said_s: float = 0.0
    rows_s: float = 0.0
    told: set[int] = field(default_factory=set)
    """Ranks of this start whose end the job knows of."""
    interface: str = ""
    is_asked_to_leave: bool = False
    """By its scheduler, or whoever else sends SIGTERM: the whole job writes a checkpoint and ends."""

    def listen(self) -> None:
        """See Supervisor.listen."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note_leave)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _note_leave(self, number: int, frame: object) -> None:
        self.is_asked_to_leave = True

    def run(self) -> int:
        """Until the job ends it, or is lost; returns the exit code."""
        self.interface = interface_of(self.member.local_address)
        self.node.tell_key = lambda key, value: self._say("set", payload=value, key=key)
        self.node.ask_key = lambda key: self._say("ask", key=key)
        self.listen()
        self.node.private = [self.member.sock]
        self.heard_s = self.now_s()
        try:
            self._say("here", node=self.name, slots=self.node.slots)
            while True:
                if self.node.look([self.member.sock.fileno()]):
                    self.heard_s = self.now_s()
                    for message in self.member.hear():
                        if message.kind == "quit":
                            return 0
                        self._obey(message)
                self._tell()
                if self.now_s() - self.heard_s > FENCE_SHARE * self.silence_s:
                    raise ConnectionAbortedError(f"nothing heard of the job for {self.silence_s:.0f} s")
        except (OSError, DataError) as error:
            print(f"node {self.name} has lost the job: {error}", file=sys.stderr, flush=True)
            return ResourceError.exit_code
        finally:
            self.node.end()

    def _obey(self, message: Message) -> None:
        facts = message.facts
        match message.kind:
            case "start":
                self._start(facts)
            case "value" if facts["attempt"] == self.attempt:
                try:
                    self.node.keys.put(facts["key"], message.payload)
                except KeyConflict:
                    self.node.end()
            case "stop":
                self.node.board.request_stop()
            case "dump":
                answered = self.node.dump([rank for rank in facts["ranks"] if rank in self.node.pids])
                self._say("dumped", answered=sorted(answered))
            case "end":
                self._say("gone", left=self.node.end())

    def _start(self, facts: dict[str, Any]) -> None:
        self.attempt, self.told = facts["attempt"], set()
        place = Placement(interface=self.interface, **facts["place"])
        self.node.start(self.attempt, place=place)
        self._say("started", pids=[[rank, pid] for rank, pid in self.node.pids.items()])

    def _tell(self) -> None:
        """What changed since the last look, and a sign of life."""
        codes = {rank: code for rank, code in self.node.exit_codes().items() if rank not in self.told}
        now_s = self.now_s()
        if self.is_asked_to_leave:
            self.is_asked_to_leave = False
            self._say("leave")
        if self.node.pids and (codes or now_s - self.rows_s >= _ROWS_S):
            self.rows_s = now_s
            self._say("rows", payload=self.node.rows.tobytes(), now_s=now_s)
        if codes:
            self.told.update(codes)
            reports = self.node.reports([rank for rank, code in codes.items() if is_failure(code)])
            self._say("ended", codes=list(codes.items()), reports=list(reports.items()))
        if now_s - self.said_s >= self.silence_s / _SIGNS:
            self._say("alive")

    def _say(self, kind: str, payload: bytes = b"", **facts: Any) -> None:
        self.said_s = self.now_s()
        self.member.send(Message(kind, {"attempt": self.attempt, **facts}, payload))

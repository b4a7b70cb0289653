"""The sockets between a rank and its node's agent, by which the rank sets and gets keys (key_value.py).

    rank -> agent   set {key} VALUE | get {key} | check {keys}
    agent -> rank   value VALUE | checked {all}

A rank has one question open at a time and reads its answer, so answers never wait in the agent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable

from rsc.cluster.rendezvous.message import Frames, Message, framed
from rsc.errors import DataError

_READ_BYTES = 1 << 16


class RankKeys:
    """In a rank: blocking, for any of its threads."""

    def __init__(self, sock: socket.socket, *, timeout_s: float) -> None:
        self._sock, self._frames = sock, Frames()
        self._lock = threading.Lock()
        sock.settimeout(timeout_s)

    def set(self, key: str, value: bytes) -> None:
        with self._lock:
            self._say(Message("set", {"key": key}, value))

    def get(self, key: str) -> bytes:
        """Waits until some rank has set it. Raises TimeoutError, and OSError where the agent is gone."""
        with self._lock:
            self._say(Message("get", {"key": key}))
            return self._answer().payload

    def check(self, keys: Iterable[str]) -> bool:
        """Whether all are there."""
        with self._lock:
            self._say(Message("check", {"keys": list(keys)}))
            return bool(self._answer().facts["all"])

    def _say(self, message: Message) -> None:
        self._sock.sendall(framed(message.encode()))

    def _answer(self) -> Message:
        while True:
            data = self._sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the node's agent has ended")
            for body in self._frames.feed(data):
                return Message.decode(body)


class AgentEnd:
    """In the agent: questions as they arrive. Training code may write anything here."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._frames = sock, Frames()
        sock.setblocking(False)

    def hear(self) -> list[Message] | None:
        """What can be read now; None where the rank is gone, or wrote what is no question."""
        try:
            data = self.sock.recv(_READ_BYTES)
            found = [Message.decode(body) for body in self._frames.feed(data)]
        except BlockingIOError:
            return []
        except (OSError, DataError):
            return None
        return found if data else None

    def answer(self, message: Message) -> None:
        """A rank that does not read its answers does not get them."""
        try:
            self.sock.send(framed(message.encode()))
        except OSError:
            self.sock.close()

"""The connections of the key agent: how many, whose, how long silent, and how they are closed.

A place is taken from whoever was silent longest and holds no key, so that idle connections lock nobody out.
Closing happens in threads of its own: closing a socket that somebody passed along, even one that was never
received, takes as long as its owner chose (SO_LINGER).

Not covered: somebody who passes such sockets by the thousand fills this process's table of descriptors.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import threading
from dataclasses import dataclass, field

from rsc.accounts import Account
from rsc.keys.secret import SecretKey
from rsc.release.agent.sandboxes import Sandbox
from rsc.release.agent.wire import Line

MOST_PEERS = 256  # each takes a descriptor of this process, which has 1024 by default
MOST_OF_ONE = 64  # of them for one process; a worker has one
IDLE_S = 60.0  # of one that holds no key; a worker asks as soon as it has connected
_CLOSERS = 4


@dataclass(eq=False)
class Peer:
    """Who is on the other side of a connection, as the kernel says."""

    line: Line
    pid: int
    account: Account
    heard_s: float
    """When it last said something."""
    sandbox: Sandbox | None = None
    """Where it lives, once it was given a key."""
    has_key: bool = False
    pending: int = 0
    """Messages that are not answered yet."""
    untaken: SecretKey | None = None
    """A released key that waits for `take` (carrier `socket` only)."""
    passed: list[int] = field(default_factory=list)
    """Descriptors that it sent, against the rules."""

    def hang_up(self) -> None:
        """The waiting thread finds the end of the connection and closes it."""
        with contextlib.suppress(OSError):
            self.line.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self.untaken is not None:
            self.untaken.close()
        self.line.connection.close()
        for fd in self.passed:
            os.close(fd)


class Peers:
    """For the one thread that waits for all connections."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._peers: set[Peer] = set()
        self._closing: queue.SimpleQueue[Peer | None] = queue.SimpleQueue()
        for _ in range(_CLOSERS):
            threading.Thread(target=self._close_each, name="key-agent-closer", daemon=True).start()

    def listen(self, listener: socket.socket) -> None:
        self._selector.register(listener, selectors.EVENT_READ)

    def wait(self, timeout_s: float) -> list[Peer | None]:
        """Who has something to say. None is the listener, the last: it may cost others their place."""
        found = [key.data for key, _ in self._selector.select(timeout_s)]
        return sorted(found, key=lambda peer: peer is None)

    def add(self, peer: Peer) -> None:
        """Take it in; a missing place comes from whoever was silent longest, or it is closed again."""
        same = [each for each in self._peers if each.pid == peer.pid]
        if len(same) >= MOST_OF_ONE and not self._drop_idlest(same):
            return self._closing.put(peer)
        if len(self._peers) >= MOST_PEERS and not self._drop_idlest(self._peers):
            return self._closing.put(peer)
        self._peers.add(peer)
        self._selector.register(peer.line.connection, selectors.EVENT_READ, peer)
        return None

    def remove(self, peer: Peer) -> None:
        self._selector.unregister(peer.line.connection)
        self._peers.discard(peer)
        self._closing.put(peer)

    def drop_idle(self, *, now_s: float) -> None:
        for peer in [each for each in self._peers if _is_idle(each) and now_s - each.heard_s > IDLE_S]:
            self.remove(peer)

    def close(self) -> None:
        for peer in list(self._peers):
            self.remove(peer)
        for _ in range(_CLOSERS):
            self._closing.put(None)
        self._selector.close()

    def _drop_idlest(self, among: set[Peer] | list[Peer]) -> bool:
        idlest = min(filter(_is_idle, among), key=lambda peer: peer.heard_s, default=None)
        if idlest is not None:
            self.remove(idlest)
        return idlest is not None

    def _close_each(self) -> None:
        while (peer := self._closing.get()) is not None:
            with contextlib.suppress(OSError):
                peer.close()


def _is_idle(peer: Peer) -> bool:
    return not peer.has_key and not peer.pending and peer.untaken is None

"""The job's end of its connections: listens, lets in who knows the secret, hears and speaks.

    hub = Hub(secret, host="10.1.0.7")
    for event in hub.wait(timeout_s=0.2): ...

One thread, no blocking call but the wait. What a peer without the secret can do is bounded: a connection
that has not proved itself in `_PATIENCE_S` is closed, there are `_MOST_STRANGERS` of them at a time (a new
one takes the oldest one's place, and a member of the job that met this tries again), each holds some
kilobytes, and in one round at most `_ACCEPTS` are taken in before members are heard. A member that stops
reading is dropped at `_MOST_UNREAD_BYTES`.

Not covered: a flood that fills the network or the kernel's queue of connections.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rsc.cluster.rendezvous.channel import Channel
from rsc.cluster.rendezvous.message import Message
from rsc.errors import DataError, ResourceError

_PATIENCE_S = 5.0  # two round trips
_MOST_STRANGERS = 512
_ACCEPTS = 64
_BACKLOG = 4096  # nodes that come together; the kernel takes its own bound where that is lower
_READ_BYTES = 1 << 16
_MOST_UNREAD_BYTES = 64 << 20


@dataclass(frozen=True)
class Joined:
    peer: int


@dataclass(frozen=True)
class Heard:
    peer: int
    message: Message


@dataclass(frozen=True)
class Left:
    peer: int
    reason: str


Event = Joined | Heard | Left


@dataclass
class _Connection:
    number: int
    sock: socket.socket
    channel: Channel
    since_s: float
    is_member: bool = False
    is_writing: bool = False
    """Whether the selector waits until it takes more bytes."""


class Hub:
    def __init__(
        self, secret: bytes, *, host: str, port: int = 0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Listen at an address of this machine, IPv4 or IPv6. Raises ResourceError where that is none."""
        self._secret, self._now_s = secret, now_s
        self._selector = selectors.DefaultSelector()
        try:
            self._listener = _listen(host, port)
        except OSError as error:
            raise ResourceError(
                f"cannot listen at {host}: {error.strerror or error}",
                hint="cluster.interface names the network interface, or an address of it",
            ) from None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._connections: dict[int, _Connection] = {}
        self._strangers: dict[int, _Connection] = {}
        self._next = 0
        self._events: list[Event] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def watch(self, file: int, *, call: Callable[[], None]) -> None:
        """Call this in `wait` when a descriptor can be read; it must read."""
        self._selector.register(file, selectors.EVENT_READ, call)

    def unwatch(self, file: int) -> None:
        self._selector.unregister(file)

    def send(self, peer: int, message: Message) -> None:
        """Queue a message; one for a peer that has left is dropped."""
        connection = self._connections.get(peer)
        if connection is not None and connection.is_member:
            connection.channel.send(message)
            self._flush(connection)

    def drop(self, peer: int) -> None:
        """Close a connection, without an event."""
        if (connection := self._connections.get(peer)) is not None:
            self._forget(connection)

    def wait(self, *, timeout_s: float) -> list[Event]:
        """What happened, at the latest after `timeout_s`; in the order in which it did."""
        for key, _ in self._selector.select(0.0 if self._events else timeout_s):
            key.data()
        self._close_slow_strangers()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._forget(connection)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, _address = self._listener.accept()
            except OSError:  # nobody else waits, or no descriptors are left until somebody leaves
                return
            if len(self._strangers) >= _MOST_STRANGERS:
                self._forget(next(iter(self._strangers.values())))
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._next += 1
            channel = Channel(self._secret, is_server=True)
            connection = _Connection(self._next, sock, channel, since_s=self._now_s())
            self._connections[self._next] = self._strangers[self._next] = connection
            self._selector.register(sock, selectors.EVENT_READ, partial(self._serve, connection))

    def _serve(self, connection: _Connection) -> None:
        """Take what arrived, send what waits; a connection that ends here is lost or forgotten."""
        if connection.number not in self._connections:  # closed in this very round
            return
        try:
            data = connection.sock.recv(_READ_BYTES)
            if not data:
                self._lose(connection, "the connection was closed")
                return
            for message in connection.channel.feed(data):
                self._welcome(connection)
                self._events.append(Heard(connection.number, message))
            self._welcome(connection)
        except BlockingIOError:
            pass
        except DataError as error:
            self._lose(connection, error.message)
            return
        except OSError as error:
            self._lose(connection, error.strerror or type(error).__name__)
            return
        self._flush(connection)

    def _welcome(self, connection: _Connection) -> None:
        if connection.channel.is_open and not connection.is_member:
            connection.is_member = True
            self._strangers.pop(connection.number)
            self._events.append(Joined(connection.number))

    def _flush(self, connection: _Connection) -> None:
        if connection.number not in self._connections:  # it left in this very round
            return
        out = connection.channel.outgoing
        try:
            while out:
                del out[: connection.sock.send(out)]
        except BlockingIOError:
            if len(out) > _MOST_UNREAD_BYTES:
                self._lose(connection, "it does not read what it is sent")
                return
        except OSError as error:
            self._lose(connection, error.strerror or type(error).__name__)
            return
        if bool(out) != connection.is_writing:
            connection.is_writing = bool(out)
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0)
            self._selector.modify(connection.sock, wanted, partial(self._serve, connection))

    def _lose(self, connection: _Connection, reason: str) -> None:
        if connection.is_member:
            self._events.append(Left(connection.number, reason))
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        self._connections.pop(connection.number, None)
        self._strangers.pop(connection.number, None)
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _close_slow_strangers(self) -> None:
        """The oldest come first, so that a round costs nothing while they are young."""
        latest_s = self._now_s() - _PATIENCE_S
        while self._strangers and (oldest := next(iter(self._strangers.values()))).since_s < latest_s:
            self._forget(oldest)


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener

"""A process of the job that joins its hub: connects, proves itself, sends and hears. One connection."""

from __future__ import annotations

import socket
import time

from rsc.cluster.rendezvous.channel import Channel
from rsc.cluster.rendezvous.message import Message
from rsc.errors import ResourceError

_READ_BYTES = 1 << 16
_CONNECT_S = 5.0
_AGAIN_S = 0.1


class Member:
    """Joined: `send` and `hear` whole messages. `sock` can be waited for beside other files."""

    def __init__(self, sock: socket.socket, channel: Channel) -> None:
        self.sock, self._channel = sock, channel

    @classmethod
    def join(cls, secret: bytes, *, address: tuple[str, int], patience_s: float) -> Member:
        """Connect and prove each other's knowledge of the secret, again and again for so long.

        Raises ResourceError with the last reason, and DataError where the other side does not know the
        secret.
        """
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                return cls._join_once(secret, address)
            except OSError as error:  # not listening yet, a network that comes up, a crowd at the door
                if time.monotonic() > deadline_s:
                    host, port = address
                    raise ResourceError(
                        f"cannot reach the job's controller at {host}, port {port}: "
                        f"{error.strerror or error or 'no answer'}",
                        hint="nodes reach it over cluster.interface: see the firewall between the nodes",
                    ) from None
                time.sleep(_AGAIN_S)

    @classmethod
    def _join_once(cls, secret: bytes, address: tuple[str, int]) -> Member:
        sock = socket.create_connection(address, timeout=_CONNECT_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            member = cls(sock, Channel(secret, is_server=False))
            while not member._channel.is_open:
                member._flush()
                data = sock.recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the connection was closed before it was open")
                assert not list(member._channel.feed(data)), "the hub answers, it does not begin"
            member._flush()
        except BaseException:
            sock.close()
            raise
        return member

    @property
    def local_address(self) -> str:
        """Of this machine, as the way to the hub leads: where peers reach it too."""
        return str(self.sock.getsockname()[0])

    def send(self, message: Message) -> None:
        """Raises OSError where the connection is lost, or has not taken it in 5 seconds."""
        self._channel.send(message)
        self._flush()

    def hear(self) -> list[Message]:
        """The messages among what has arrived; waits for the first byte. Raises OSError and DataError when
        the connection is lost, or no longer the job's."""
        data = self.sock.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the controller closed the connection")
        return list(self._channel.feed(data))

    def close(self) -> None:
        self.sock.close()

    def _flush(self) -> None:
        out = self._channel.outgoing
        self.sock.sendall(out)
        out.clear()

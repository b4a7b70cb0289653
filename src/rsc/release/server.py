"""The key agent on a unix socket, for workers in the sandbox.

The kernel says who asks (peer credentials); the agent looks at that process from outside (observe.py)
before it decides; the key goes over as a descriptor (handover.py). A lease that is not renewed in time
ends with the death of the process that holds it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import socket
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rsc.clock import Clock
from rsc.errors import ConfigError, GateRefused, RscError
from rsc.release.agent import KeyAgent
from rsc.release.handover import Carrier, carriers, carry, send_inline
from rsc.release.leases import Lease, Leases
from rsc.release.observe import observe
from rsc.release.request import KeyRequest
from rsc.release.wire import Line, error_message, peer_of, short_path

_LOOK_S = 2.0  # how often expired leases are looked for
_BACKLOG = 512


class AgentServer:
    """Serves until closed, from threads of its own. Use as a context manager."""

    def __init__(
        self, agent: KeyAgent, *, socket_path: Path, clock: Clock, carrier: Carrier | None = None
    ) -> None:
        """The socket is made here, for this user only; its folder must exist."""
        self._agent = agent
        self._clock = clock
        self._path = socket_path
        self._carrier = carrier or carriers()[0]
        self._leases = Leases()
        self._ended: queue.SimpleQueue[tuple[int, KeyRequest, str]] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._listener = _listen(socket_path)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._accept, self._watch)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop answering. Workers that hold keys keep them until their leases would have ended."""
        self._is_closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._log_ended()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> AgentServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def end_overdue(self) -> None:
        """Kill the holders of leases that ran out, and forget those who are gone. Runs every two seconds."""
        now_s = self._clock.monotonic_s()
        for lease in self._leases.all():
            is_alive = lease.holder.is_alive()
            if is_alive and now_s < lease.expires_s:
                continue
            if is_alive:
                lease.holder.kill()
            self._end_lease(lease, how="expired" if is_alive else "gone")
        self._log_ended()

    def _watch(self) -> None:
        while not self._is_closing.wait(_LOOK_S):
            self.end_overdue()

    def _accept(self) -> None:
        while not self._is_closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError, KeyError, TypeError, ValueError):
            pid, uid = peer_of(connection)
            line = Line(connection)
            while (received := line.receive()) is not None:
                message, descriptors = received
                for fd in descriptors:
                    os.close(fd)
                self._answer(line, message, pid=pid, user=_user_name(uid))

    def _answer(self, line: Line, message: dict[str, Any], *, pid: int, user: str) -> None:
        try:
            if message.get("op") == "end":
                self._end(int(message["lease"]), pid=pid)
                line.send({"ok": True})
                return
            request = replace(KeyRequest.from_json(message.get("request", {})), user=user)
            outside = observe(pid, allowed_sockets=(self._path,))
            if message.get("op") == "renew":
                line.send(
                    {"ok": True, "lease_s": self._renew(int(message["lease"]), request, outside, pid=pid)}
                )
            else:
                self._hand_over(line, request, outside, pid=pid)
        except RscError as error:
            line.send(error_message(error))
        except ConnectionError:
            raise
        except OSError as error:
            line.send(error_message(GateRefused(f"the key agent could not write its log: {error.strerror}")))

    def _hand_over(
        self, line: Line, request: KeyRequest, outside: tuple[str, ...] | None, *, pid: int
    ) -> None:
        holder = {"pid": pid, "socket": str(self._path.absolute())}
        grant = self._agent.grant(request, outside=outside, holder=holder)
        with grant.key:
            lease_s = grant.decision.lease_s
            expires_s = self._clock.monotonic_s() + lease_s
            try:
                self._leases.add(grant.number, request=request, pid=pid, expires_s=expires_s)
            except ProcessLookupError:
                raise GateRefused("the process that asked is gone") from None
            reply = {"ok": True, "lease": grant.number, "lease_s": lease_s, "carrier": self._carrier}
            if self._carrier == "socket":
                line.send(reply)
                line.receive()
                send_inline(line.connection, grant.key)
                return
            fd = carry(grant.key, carrier=self._carrier)
            try:
                line.send(reply, fd=fd)
            finally:
                os.close(fd)

    def _renew(self, number: int, request: KeyRequest, outside: tuple[str, ...] | None, *, pid: int) -> float:
        lease = self._leases.get(number)
        if lease is None or lease.holder.pid != pid:
            raise GateRefused(f"there is no lease {number} of this process", hint="ask for the key again")
        same_key = replace(lease.request, isolation=request.isolation, hygiene=request.hygiene)
        decision = self._agent.renew(same_key, outside=outside)
        self._leases.extend(number, expires_s=self._clock.monotonic_s() + decision.lease_s)
        return decision.lease_s

    def _end(self, number: int, *, pid: int) -> None:
        lease = self._leases.get(number)
        if lease is not None and lease.holder.pid == pid:
            self._end_lease(lease, how="returned")

    def _end_lease(self, lease: Lease, *, how: str) -> None:
        if self._leases.end(lease.number):
            self._ended.put((lease.number, lease.request, how))

    def _log_ended(self) -> None:
        """Endings go to the log together, every two seconds: losing one to a crash hides no release."""
        ended = []
        with contextlib.suppress(queue.Empty):
            while True:
                ended.append(self._ended.get_nowait())
        if ended:
            self._agent.log_ended(ended)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        with short_path(path) as address:
            listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot make the agent's socket {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

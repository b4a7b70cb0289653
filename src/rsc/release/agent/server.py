"""The key agent on a unix socket, for workers in the sandbox.

The kernel says who asks (peer credentials); the agent looks at that process from outside (observe.py)
before it decides; the key goes over as a descriptor (handover.py). A lease that is not renewed in time
ends with the death of the process that holds it. What does not belong to the job is refused (served.py).

One thread waits for every connection and answers all that has arrived in one go, so that the releases of
a whole job share one commit of the log (1.6x the rate of a thread for each of 8 clients, which wait for
each other's interpreter lock). Where opening a key waits for a network, a token or a memory-hard function,
requests are answered by a pool of threads instead, and the log groups their commits.

Nothing that one worker sends, and no error of one round, ends a thread: it is told on stderr, the peer is
hung up on, and the next round begins. Endings that the log did not take are logged in a later round.

Not covered: a holder that this user may not kill (root's); the log then says so.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rsc.accounts import Account, account_of
from rsc.clock import Clock
from rsc.errors import ConfigError, GateRefused, RscError
from rsc.keys.secret import SecretKey
from rsc.release.agent.agent import Asking, Grant, KeyAgent
from rsc.release.agent.handover import Carrier, carriers, carry, send_inline
from rsc.release.agent.job_scope import Served
from rsc.release.agent.leases import Leases
from rsc.release.agent.observe import meant_sockets, observe
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.wire import Line, error_message, peer_of, short_path

_LOOK_S = 2.0  # how often expired leases are looked for
_BACKLOG = 512
_SLOW_THREADS = 16
_MAX_LEASES = 256  # of one process, which holds two or three for each data set of its mixture
_MAX_PEERS = 256  # connections; each takes a descriptor of this process, which has 1024 by default


@dataclass
class _Peer:
    """Who is on the other side of a connection, as the kernel says."""

    line: Line
    pid: int
    account: Account
    untaken: SecretKey | None = None
    """A released key that waits for `take` (carrier `socket` only)."""

    def close(self) -> None:
        if self.untaken is not None:
            self.untaken.close()
        self.line.connection.close()


_Received = tuple[_Peer, dict[str, Any]]


class AgentServer:
    """Serves until closed, from threads of its own. Use as a context manager."""

    def __init__(
        self,
        agent: KeyAgent,
        *,
        socket_path: Path,
        clock: Clock,
        serves: Served,
        carrier: Carrier | None = None,
    ) -> None:
        """The socket is made here, for this user only; its folder must exist."""
        self._agent = agent
        self._clock = clock
        self._path = socket_path
        self._serves = serves
        self._carrier = carrier or carriers()[0]
        self._leases = Leases()
        self._ended: queue.SimpleQueue[tuple[int, KeyRequest, str]] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._listener = _listen(socket_path)
        self._pool = ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="key-agent")
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve, self._watch)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop answering. Workers that hold keys keep them until their leases would have ended."""
        self._is_closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._pool.shutdown()
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
        for ended in self._leases.take_ended(now_s=self._clock.monotonic_s()):
            self._ended.put((ended.number, ended.request, ended.how))
        self._log_ended()

    def _watch(self) -> None:
        while not self._is_closing.wait(_LOOK_S):
            try:
                self.end_overdue()
            except Exception:  # leases are enforced in the next round, whatever became of this one
                traceback.print_exc()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._is_closing.is_set():
                received: list[_Received] = []
                for key, _ in selector.select():
                    if key.data is None:
                        self._accept(selector)
                    else:
                        received += _receive(selector, key.data)
                if received and self._agent.is_immediate:
                    self._answer(received)
                else:
                    for one in received:
                        self._pool.submit(self._answer, [one])
            for key in list(selector.get_map().values()):
                if key.data is not None:
                    key.data.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
            pid, uid = peer_of(connection)
        except OSError:
            return  # closing, or the other side has gone again
        is_full = len(selector.get_map()) > _MAX_PEERS
        if is_full or uid not in (0, os.getuid()):
            connection.close()  # the socket is for this user only, whatever became of its mode
            return
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, _Peer(Line(connection), pid, account_of(uid)))

    def _answer(self, received: list[_Received]) -> None:
        try:
            self._answer_each(received)
        except Exception:  # ours to mend; until then it costs these peers their connections, nobody else
            traceback.print_exc()
            for peer, _ in received:
                _hang_up(peer)

    def _answer_each(self, received: list[_Received]) -> None:
        """Answer each; requests for keys together."""
        asked: list[tuple[_Peer, Asking]] = []
        for peer, message in received:
            try:
                if message.get("op") == "release":
                    asked.append((peer, self._asking(peer, message)))
                else:
                    self._answer_other(peer, message)
            except RscError as error:
                _send(peer, error_message(error))
            except OSError as error:
                _send(peer, error_message(_unlogged(error)))
            except (AttributeError, KeyError, TypeError, ValueError):
                _hang_up(peer)
        if asked:
            self._release(asked)

    def _answer_other(self, peer: _Peer, message: dict[str, Any]) -> None:
        op = message.get("op")
        if op == "take" and peer.untaken is not None:
            with peer.untaken as key:
                peer.untaken = None
                send_inline(peer.line.connection, key)
        elif op == "end":
            self._end(int(message["lease"]), pid=peer.pid)
            _send(peer, {"ok": True})
        elif op == "renew":
            asking = self._asking(peer, message)
            number = int(message["lease"])
            lease_s = self._renew(number, asking.request, asking.outside, pid=peer.pid)
            _send(peer, {"ok": True, "lease_s": lease_s})
        else:
            raise ValueError(op)

    def _asking(self, peer: _Peer, message: dict[str, Any]) -> Asking:
        account = peer.account
        request = KeyRequest.from_json(message.get("request", {}))
        request = replace(request, user=account.name, uid=account.uid)
        request = self._serves.pinned(request)
        outside = observe(peer.pid, allowed_sockets=meant_sockets(self._path))
        holder = {"pid": peer.pid, "socket": str(self._path.absolute())}
        refusal = self._serves.refusal(request)
        if self._leases.count(pid=peer.pid) >= _MAX_LEASES:
            refusal = GateRefused(f"this process holds {_MAX_LEASES} keys already")
        return Asking(request, outside, holder, refusal)

    def _release(self, asked: list[tuple[_Peer, Asking]]) -> None:
        answers: list[Grant | RscError]
        try:
            answers = self._agent.grant([asking for _, asking in asked])
        except RscError as error:
            answers = [error] * len(asked)
        except OSError as error:
            answers = [_unlogged(error)] * len(asked)
        for (peer, asking), answer in zip(asked, answers, strict=True):
            if isinstance(answer, RscError):
                _send(peer, error_message(answer))
            else:
                self._hand_over(peer, asking.request, answer)

    def _hand_over(self, peer: _Peer, request: KeyRequest, grant: Grant) -> None:
        lease_s = grant.decision.lease_s
        expires_s = self._clock.monotonic_s() + lease_s
        reply = {"ok": True, "lease": grant.number, "lease_s": lease_s, "carrier": self._carrier}
        try:
            self._leases.add(grant.number, request=request, pid=peer.pid, expires_s=expires_s)
            self._send_key(peer, reply, key=grant.key)
        except OSError as error:  # it is gone, or this process has no descriptor or page left
            grant.key.close()
            self._leases.end(grant.number)
            self._ended.put((grant.number, request, "not handed over"))
            _send(peer, error_message(GateRefused(f"the key was not handed over: {error.strerror}")))

    def _send_key(self, peer: _Peer, reply: dict[str, Any], *, key: SecretKey) -> None:
        if self._carrier == "socket":
            peer.untaken = key
            _send(peer, reply)
            return
        with key:
            fd = carry(key, carrier=self._carrier)
        try:
            _send(peer, reply, fd=fd)
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
        if lease is not None and lease.holder.pid == pid and self._leases.end(number):
            self._ended.put((number, lease.request, "returned"))

    def _log_ended(self) -> None:
        """Endings go to the log together, every two seconds: losing one to a crash hides no release."""
        ended = []
        with contextlib.suppress(queue.Empty):
            while True:
                ended.append(self._ended.get_nowait())
        if not ended:
            return
        try:
            self._agent.log_ended(ended)
        except (OSError, RscError):  # a full disk, a damaged log: keys are not given then either
            for one in ended:
                self._ended.put(one)


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


def _receive(selector: selectors.BaseSelector, peer: _Peer) -> list[_Received]:
    """What has arrived from one; nothing, and the connection closed, when it hung up or talks nonsense."""
    try:
        messages = peer.line.receive_now()
    except (OSError, ValueError, RecursionError):
        messages = None
    if messages is not None:
        return [(peer, message) for message in messages]
    selector.unregister(peer.line.connection)
    peer.close()
    return []


def _send(peer: _Peer, message: dict[str, Any], *, fd: int | None = None) -> None:
    """Never waits: whoever has gone, or leaves its answers unread, is hung up on."""
    try:
        peer.line.send(message, fd=fd)
    except OSError:
        _hang_up(peer)


def _hang_up(peer: _Peer) -> None:
    """The waiting thread finds the end of the connection and closes it."""
    with contextlib.suppress(OSError):
        peer.line.connection.shutdown(socket.SHUT_RDWR)


def _unlogged(error: OSError) -> GateRefused:
    return GateRefused(f"the key agent could not write its log: {error.strerror}")

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
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rsc.accounts import account_of
from rsc.clock import Clock
from rsc.errors import ConfigError, GateRefused, RscError
from rsc.keys.secret import SecretKey
from rsc.release.agent.agent import Asking, Grant, KeyAgent
from rsc.release.agent.handover import Carrier, carriers, carry, send_inline
from rsc.release.agent.job_scope import Served
from rsc.release.agent.leases import Leases
from rsc.release.agent.observe import meant_sockets, observe
from rsc.release.agent.peers import IDLE_S, Peer, Peers
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.sandboxes import sandbox_of
from rsc.release.agent.wire import DescriptorsPassed, Line, error_message, peer_of, short_path

_LOOK_S = 2.0  # how often expired leases are looked for
_BACKLOG = 512
_SLOW_THREADS = 16
_MAX_LEASES = 256  # of one process, which holds two or three for each data set of its mixture


_Received = tuple[Peer, dict[str, Any]]


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
        with contextlib.suppress(OSError, RscError):
            self._agent.log_repeated(all_of_it=True)
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
                self._agent.log_repeated()
            except Exception as error:  # leases are enforced in the next round all the same
                _tell(error)

    def _serve(self) -> None:
        with contextlib.closing(Peers()) as peers:
            peers.listen(self._listener)
            while not self._is_closing.is_set():
                received: list[_Received] = []
                for peer in peers.wait(IDLE_S):
                    if peer is None:
                        self._accept(peers)
                    else:
                        received += self._receive(peers, peer)
                if received and self._agent.is_immediate:
                    self._answer(received)
                else:
                    for one in received:
                        self._pool.submit(self._answer, [one])
                peers.drop_idle(now_s=self._clock.monotonic_s())

    def _receive(self, peers: Peers, peer: Peer) -> list[_Received]:
        """What has arrived from one; nothing, and it is closed, when it hung up or talks nonsense."""
        try:
            messages = peer.line.receive_now()
        except DescriptorsPassed as error:
            messages, peer.passed = None, error.fds
        except (OSError, ValueError, RecursionError):
            messages = None
        if messages is None:
            peers.remove(peer)
            return []
        peer.heard_s = self._clock.monotonic_s()
        peer.pending += len(messages)
        return [(peer, message) for message in messages]

    def _accept(self, peers: Peers) -> None:
        try:
            connection, _ = self._listener.accept()
            pid, uid = peer_of(connection)
        except OSError:
            return  # closing, or the other side has gone again
        if uid not in (0, os.getuid()):
            connection.close()  # the socket is for this user only, whatever became of its mode
            return
        connection.setblocking(False)
        now_s = self._clock.monotonic_s()
        peers.add(Peer(Line(connection), pid, account_of(uid), heard_s=now_s))

    def _answer(self, received: list[_Received]) -> None:
        try:
            self._answer_each(received)
        except Exception as error:  # ours to mend; until then it costs these peers their connections
            _tell(error)
            for peer, _ in received:
                peer.hang_up()
        finally:
            for peer, _ in received:
                peer.pending -= 1

    def _answer_each(self, received: list[_Received]) -> None:
        """Answer each; requests for keys together."""
        asked: list[tuple[Peer, Asking]] = []
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
            except Exception:  # whatever it sent costs it alone its connection
                peer.hang_up()
        if asked:
            self._release(asked)

    def _answer_other(self, peer: Peer, message: dict[str, Any]) -> None:
        op = message.get("op")
        if op == "take" and peer.untaken is not None:
            with peer.untaken as key:
                peer.untaken = None
                send_inline(peer.line.connection, key)
        elif op == "end":
            self._end(_number(message), pid=peer.pid)
            _send(peer, {"ok": True})
        elif op == "renew":
            asking = self._asking(peer, message)
            lease_s = self._renew(_number(message), asking.request, asking.outside, pid=peer.pid)
            _send(peer, {"ok": True, "lease_s": lease_s})
        else:
            raise ValueError(op)

    def _asking(self, peer: Peer, message: dict[str, Any]) -> Asking:
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

    def _release(self, asked: list[tuple[Peer, Asking]]) -> None:
        answers: list[Grant | RscError]
        try:
            answers = self._agent.grant([asking for _, asking in asked])
        except RscError as error:
            answers = [error] * len(asked)
        except OSError as error:
            answers = [_unlogged(error)] * len(asked)
        except Exception as error:
            _tell(error)
            if len(asked) == 1:
                return asked[0][0].hang_up()
            for one in asked:  # each alone, so that it costs nobody else
                self._release([one])
            return None
        for (peer, asking), answer in zip(asked, answers, strict=True):
            if isinstance(answer, RscError):
                _send(peer, error_message(answer))
            else:
                self._hand_over(peer, asking.request, answer)

    def _hand_over(self, peer: Peer, request: KeyRequest, grant: Grant) -> None:
        lease_s = grant.decision.lease_s
        expires_s = self._clock.monotonic_s() + lease_s
        reply = {"ok": True, "lease": grant.number, "lease_s": lease_s, "carrier": self._carrier}
        try:
            if not peer.has_key:
                peer.sandbox, peer.has_key = sandbox_of(peer.pid, controllers=self._serves.controllers), True
            self._leases.add(
                grant.number, request=request, pid=peer.pid, expires_s=expires_s, sandbox=peer.sandbox
            )
            self._send_key(peer, reply, key=grant.key)
        except OSError as error:  # it is gone, or this process has no descriptor or page left
            grant.key.close()
            self._leases.end(grant.number)
            self._ended.put((grant.number, request, "not handed over"))
            _send(peer, error_message(GateRefused(f"the key was not handed over: {error.strerror}")))

    def _send_key(self, peer: Peer, reply: dict[str, Any], *, key: SecretKey) -> None:
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


def _send(peer: Peer, message: dict[str, Any], *, fd: int | None = None) -> None:
    """Never waits: whoever has gone, or leaves its answers unread, is hung up on."""
    try:
        peer.line.send(message, fd=fd)
    except OSError:
        peer.hang_up()


def _number(message: Mapping[str, Any]) -> int:
    """Of a lease. Raises ValueError for anything but a whole number that JSON counts exactly."""
    number = message["lease"]
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise ValueError("not the number of a lease")
    return number


def _tell(error: Exception) -> None:
    """Our own mistake, without words of who caused it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    print(
        f"key agent: {type(error).__name__} at {where}; its request was dropped", file=sys.stderr, flush=True
    )


def _unlogged(error: OSError) -> GateRefused:
    return GateRefused(f"the key agent could not write its log: {error.strerror}")

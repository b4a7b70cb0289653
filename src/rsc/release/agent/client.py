"""How a worker gets its keys and keeps the right to them. Standard library and keys/secret.py only.

    with hold_keys(socket, {"data": request, "run": other}, measure=measure) as keys:
        ... keys["data"] ...

A thread measures this process's isolation and renews the leases every minute; when the agent says no,
or cannot be reached until a lease has run out, the keys are wiped and the process ends. The agent kills
it anyway; this is the quicker of the two.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from rsc.errors import GateRefused, RscError
from rsc.keys.secret import SecretKey
from rsc.release.agent.handover import receive_inline, take
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.wire import Line, short_path, to_error

RENEW_S = 60.0

Name = TypeVar("Name")

Measure = Callable[[], tuple[dict[str, Any], dict[str, Any]]]
"""Gives (isolation report, hygiene report) of this process as JSON values, measured now."""


@dataclass(frozen=True)
class LeasedKey:
    key: SecretKey
    lease: int
    lease_s: float
    request: KeyRequest


class KeyClient:
    """One connection to the agent; for one thread at a time."""

    def __init__(self, socket_path: Path) -> None:
        """Raises GateRefused when nobody answers there."""
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(socket_path) as address:
                self._connection.connect(address)
        except OSError as error:
            self._connection.close()
            raise GateRefused(
                f"the key agent does not answer at {socket_path.name}: {error.strerror}",
                hint="it runs as long as its `rsc train` does",
            ) from None
        self._line = Line(self._connection)

    def release(self, request: KeyRequest) -> LeasedKey:
        """Raises the agent's own refusal, such as ReviewMissing or IsolationRefused."""
        reply, fds = self._ask({"op": "release", "request": request.to_json()})
        if reply["carrier"] == "socket":
            self._line.send({"op": "take"})
            key = receive_inline(self._connection)
        else:
            key = take(fds[0])
        return LeasedKey(key, reply["lease"], reply["lease_s"], request)

    def renew(self, held: LeasedKey, *, isolation: dict[str, Any], hygiene: dict[str, Any]) -> LeasedKey:
        request = replace(held.request, isolation=isolation, hygiene=hygiene)
        reply, _ = self._ask({"op": "renew", "lease": held.lease, "request": request.to_json()})
        return replace(held, lease_s=reply["lease_s"])

    def end(self, held: LeasedKey) -> None:
        """Wipe the key and give the lease back."""
        held.key.close()
        self._ask({"op": "end", "lease": held.lease})

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> KeyClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        try:
            self._line.send(message)
            received = self._line.receive()
        except OSError as error:
            raise GateRefused(f"the connection to the key agent broke: {error}") from None
        if received is None:
            raise GateRefused("the key agent hung up", hint="it runs as long as its `rsc train` does")
        if not received[0]["ok"]:
            raise to_error(received[0])
        return received


def request_key(socket_path: Path, request: KeyRequest) -> SecretKey:
    """One key for a short task: its lease is not renewed, so the agent ends this process when it runs out."""
    with KeyClient(socket_path) as client:
        return client.release(request).key


def end_process(error: RscError) -> None:
    """What a worker does when it loses the right to its keys: say why and stop at once, code 3."""
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)


@contextmanager
def hold_keys(
    socket_path: Path,
    requests: Mapping[Name, KeyRequest],
    *,
    measure: Measure,
    on_lost: Callable[[RscError], None] = end_process,
    renew_s: float = RENEW_S,
) -> Iterator[dict[Name, SecretKey]]:
    """Measure, ask for every key, renew while the block runs, then wipe and give back.

    Raises the agent's refusal. `on_lost` is called from the renewing thread, after the keys were wiped.
    """
    with KeyClient(socket_path) as client:
        isolation, hygiene = measure()
        held: dict[Name, LeasedKey] = {}
        try:
            for name, request in requests.items():
                held[name] = client.release(replace(request, isolation=isolation, hygiene=hygiene))
            with _Renewal(client, held, measure=measure, on_lost=on_lost, renew_s=renew_s):
                yield {name: leased.key for name, leased in held.items()}
        finally:
            for leased in held.values():
                leased.key.close()
            with suppress(RscError):  # an agent that is gone has no lease to take back
                for leased in held.values():
                    client.end(leased)


class _Renewal(Generic[Name]):
    def __init__(
        self,
        client: KeyClient,
        held: dict[Name, LeasedKey],
        *,
        measure: Measure,
        on_lost: Callable[[RscError], None],
        renew_s: float,
    ) -> None:
        self._client, self._held = client, held
        self._measure, self._on_lost, self._renew_s = measure, on_lost, renew_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-lease", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._renew_s):
            try:
                isolation, hygiene = self._measure()
                for name, leased in self._held.items():
                    self._held[name] = self._client.renew(leased, isolation=isolation, hygiene=hygiene)
            except RscError as error:
                for leased in self._held.values():
                    leased.key.close()
                self._on_lost(error)
                return

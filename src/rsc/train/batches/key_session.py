"""The keys of a worker: the data sets', to read, the run's, to write checkpoints, and for a first start
from another run's weights, that run's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsc.cluster.sandbox.probe import hygiene, probe
from rsc.hardening import harden_process
from rsc.keys.secret import SecretKey
from rsc.loader.config import DataConfig
from rsc.release.agent.client import hold_keys
from rsc.release.agent.request import KeyRequest
from rsc.store.cache.mover_client import socket_beside


@dataclass(frozen=True)
class Keys:
    data: Mapping[str, SecretKey]
    """By name of the data set."""
    run: SecretKey
    parent: SecretKey | None = None
    """Of the run this one starts from."""


@contextmanager
def open_keys(socket: Path, *, run: str, data: DataConfig, parent: str | None = None) -> Iterator[Keys]:
    """Prove isolation from inside, ask the key agent for all, prove again every minute; wiped on exit.

    Raises GateRefused when the agent says no; when it says no later, this process ends.
    """
    harden_process()
    # The keys of the runs are bound to the rules of every data set that the run is trained on.
    of_runs = {"run": run} if parent is None else {"run": run, "parent": parent}
    requests = {}
    for each in data.sets:
        about = {"data": each.name, "version": each.version}
        requests["data", each.name] = _request("train", run=run, **about)
        for what, named in of_runs.items():
            requests[what, each.name] = _request("checkpoint", run=named, **about)

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        return probe(allowed_sockets=[socket, socket_beside(socket)]).to_json(), hygiene().to_json()

    with hold_keys(socket, requests, measure=measure) as keys:
        yield Keys(
            data={each.name: keys["data", each.name] for each in data.sets},
            run=keys["run", data.name],
            parent=keys.get(("parent", data.name)),
        )


def _request(purpose: str, **about: Any) -> KeyRequest:
    return KeyRequest.from_json({"purpose": purpose, **about})

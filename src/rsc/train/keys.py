"""The keys of a worker: the data set's, to read, the run's, to write checkpoints, and for a first start
from another run's weights, that run's."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsc.cluster.launch.harden import hide_memory
from rsc.cluster.launch.probe import hygiene, probe
from rsc.loader.config import DataConfig
from rsc.release.client import hold_keys
from rsc.release.request import KeyRequest
from rsc.store.secret import SecretKey


@dataclass(frozen=True)
class Keys:
    data: SecretKey
    run: SecretKey
    parent: SecretKey | None = None
    """Of the run this one starts from."""


@contextmanager
def open_keys(socket: Path, *, run: str, data: DataConfig, parent: str | None = None) -> Iterator[Keys]:
    """Prove isolation from inside, ask the key agent for all, prove again every minute; wiped on exit.

    Raises GateRefused when the agent says no; when it says no later, this process ends.
    """
    hide_memory()
    about = {"user": getpass.getuser(), "run": run, "data": data.name, "version": data.version}
    requests = {
        purpose: KeyRequest.from_json({"purpose": purpose, **about}) for purpose in ("train", "checkpoint")
    }
    if parent is not None:
        requests["parent"] = KeyRequest.from_json({**about, "purpose": "checkpoint", "run": parent})

    def measure() -> tuple[dict[str, Any], dict[str, Any]]:
        return probe(allowed_sockets=[socket]).to_json(), hygiene().to_json()

    with hold_keys(socket, requests, measure=measure) as keys:
        yield Keys(data=keys["train"], run=keys["checkpoint"], parent=keys.get("parent"))

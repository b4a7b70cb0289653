"""What the workers of one job may ask the key agent for. Anything else is refused, and the log says so.

The list is made by `rsc train` before a worker starts, so a worker that was told lies by its data, or
that lies itself, gets at most what it was started for.

Not covered: a key of the list asked for twice, or by another process of the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rsc.errors import GateRefused
from rsc.release.agent.request import KeyRequest, Purpose

_FOR_WORKERS: tuple[Purpose, ...] = ("train", "checkpoint")


@dataclass(frozen=True)
class Served:
    data: Mapping[str, int]
    """The version that the job reads, by name of the data set."""
    runs: frozenset[str]
    """The job's own run, and the one that it starts from."""
    controllers: int = 0
    """Processes of ours between the agent and the launchers of the job: 1 where one starts its nodes."""

    def pinned(self, request: KeyRequest) -> KeyRequest:
        """With the version of the list where the request names none, or the same."""
        version = self.data.get(request.data or "")
        return replace(request, version=version) if request.version in (None, version) else request

    def refusal(self, request: KeyRequest) -> GateRefused | None:
        """Why a pinned request is not one of this job; None when it is. Says nothing in its asker's words."""
        if request.purpose not in _FOR_WORKERS:
            return GateRefused(f"workers get no key for the purpose {request.purpose}")
        if request.data is None and request.version is not None:
            return GateRefused("a version of no data set was asked for")
        if request.data is not None and self.data.get(request.data) != request.version:
            return GateRefused("the job of this worker does not read that data set version")
        if request.run is not None and request.run not in self.runs:
            return GateRefused("the job of this worker has no part in that run")
        return None

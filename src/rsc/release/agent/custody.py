"""What guards a workspace's data, opened as one: its keys, its log, its clock and the agent over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from rsc.audit.log import AuditLog
from rsc.clock import Clock, SystemClock
from rsc.config import Workspace
from rsc.keys.envelope import KeyProvider
from rsc.keys.providers.configured import configured_providers
from rsc.keys.secret import SecretKey
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.request import KeyRequest
from rsc.store.dataset import Dataset


@dataclass(frozen=True)
class Custody:
    """Parts are opened when they are first asked for: a key folder may ask for its passphrase then."""

    workspace: Workspace
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def open(cls) -> Custody:
        """Of the workspace that the environment names."""
        return cls(Workspace.from_environment())

    @cached_property
    def providers(self) -> dict[str, KeyProvider]:
        return configured_providers(self.workspace.keys, clock=self.clock)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog.open(self.workspace.audit, clock=self.clock)

    @cached_property
    def agent(self) -> KeyAgent:
        return KeyAgent(self.workspace, providers=self.providers, audit=self.audit, clock=self.clock)

    def review_key(self, dataset: Dataset, *, user: str) -> SecretKey:
        """The data key for the purpose of review; the release is logged. Raises GateRefused."""
        request = KeyRequest(purpose="review", user=user, data=dataset.name, version=dataset.version)
        return self.agent.release(request)

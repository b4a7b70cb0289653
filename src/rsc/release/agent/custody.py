"""What guards a workspace's data, opened as one: its keys, its log, its clock and the agent over them.

Commands and the Python API open a workspace here, so that neither has a door of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from rsc.accounts import Account, this_account
from rsc.audit.log import AuditLog
from rsc.clock import Clock, SystemClock
from rsc.config import Workspace
from rsc.keys.envelope import KeyProvider
from rsc.keys.providers.configured import configured_providers
from rsc.keys.secret import SecretKey
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.decision import DataFacts
from rsc.release.agent.facts import data_facts
from rsc.release.agent.request import KeyRequest
from rsc.release.record.log_record import LiveRecord, Recorded
from rsc.store.dataset import Dataset


@dataclass(frozen=True)
class Custody:
    """Parts are opened when they are first asked for: a key folder may ask for its passphrase then."""

    workspace: Workspace
    clock: Clock = field(default_factory=SystemClock)
    account: Account = field(default_factory=this_account)
    """Who works with it, as the kernel says."""

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
        return KeyAgent(
            self.workspace,
            providers=self.providers,
            audit=self.audit,
            clock=self.clock,
            account=self.account,
        )

    @property
    def recorded(self) -> Recorded:
        """What the log says by now. Raises IntegrityError; GateRefused where its witness contradicts it."""
        return self._record.now()

    @cached_property
    def _record(self) -> LiveRecord:
        return LiveRecord(self.audit, witness=self.workspace.witness)

    def facts(self, dataset: Dataset) -> DataFacts:
        """Where the review of a version stands now. Raises ReviewVoid as `data_facts` does."""
        now = self.clock.now()
        return data_facts(dataset, workspace=self.workspace, recorded=self.recorded, now=now)

    def review_key(self, dataset: Dataset) -> SecretKey:
        """The data key for the purpose of review; the release is logged. Raises GateRefused."""
        return self.agent.release(KeyRequest("review", data=dataset.name, version=dataset.version))

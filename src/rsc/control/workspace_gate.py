"""The privacy gate as training meets it: may this data be trained on, and who answers for the keys.

`admit` asks before any process starts and hands out nothing; every worker is asked again, with proof of
its isolation, when it wants its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from rsc.accounts import Account, this_account
from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.cluster.sandbox.wrap import Level
from rsc.config import CipherChoice, Workspace
from rsc.control.admission import Admission
from rsc.errors import KeyUnavailable, ReviewVoid
from rsc.keys.envelope import (
    Envelope,
    KeyProvider,
    new_envelope,
    period_end,
    period_of,
    run_kek_id,
    run_key_context,
)
from rsc.keys.providers.configured import run_retention_s
from rsc.loader.config import DataConfig
from rsc.recipes.data_fit import samples_of
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.decision import DataFacts, decide
from rsc.release.agent.facts import data_facts
from rsc.release.agent.facts_cache import FactsCache
from rsc.release.agent.job_scope import Served
from rsc.release.agent.measured_code import measure
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.server import AgentServer
from rsc.release.record.log_record import LiveRecord
from rsc.release.record.origin_facts import facts_of
from rsc.release.record.run_origin import BEGAN, RunOrigin, Version, require_origin
from rsc.runs.code_version import code_facts
from rsc.runs.folder import RunFolder
from rsc.store.dataset import Dataset

REHASH_BYTES = 4 << 30
"""Data sets up to this size are hashed whole before each run: about 2 s, at 1.8 GB/s of SHA-256."""


@dataclass(frozen=True)
class WorkspaceGate:
    """The gate of one workspace (`controller.Gate`)."""

    workspace: Workspace
    providers: Mapping[str, KeyProvider]
    """By the name that envelopes carry, the one for new keys first."""
    clock: Clock
    account: Account = field(default_factory=this_account)

    @cached_property
    def _record(self) -> LiveRecord:
        return LiveRecord(self._audit(), witness=self.workspace.witness)

    def admit(self, data: DataConfig) -> Admission:
        """Review, purpose, retention and key, now. Raises the GateRefused that fits, and logs it."""
        dataset = Dataset.open(self.workspace.bulk, name=data.name, version=data.version)
        recorded, now = self._record.now(), self.clock.now()
        facts = data_facts(dataset, workspace=self.workspace, recorded=recorded, now=now)
        request = KeyRequest(
            "train", self.account.name, data=dataset.name, version=dataset.version, uid=self.account.uid
        )
        # Isolation is not proven here but by each worker: only the rules about the data decide.
        about_data = facts.policy.model_copy(update={"isolation": "none", "code": ()})
        decision = decide(request, facts=replace(facts, policy=about_data), outside=None, now=now)
        envelope = dataset.envelope()
        try:
            if not decision.is_allowed:
                raise decision.to_error()
            self._require_key(envelope, data=dataset.name)
            if isinstance(self.workspace.bulk, Path):
                _require_unchanged(dataset)
        except Exception as error:
            self._audit().append(
                "train_refused",
                data=dataset.name,
                version=dataset.version,
                user=self.account.name,
                reason=str(error),
            )
            raise
        samples = samples_of(dataset, split=data.split)
        lineage = _lineage(dataset, facts, envelope=envelope)
        return Admission(version=dataset.version, lineage=lineage, samples=samples)

    def isolation(self, version: Version, *, root_hash: str) -> Level:
        return self._facts_of(version, root_hash=root_hash).policy.isolation

    def cipher(self, version: Version, *, root_hash: str) -> CipherChoice:
        policy = self._facts_of(version, root_hash=root_hash).policy
        return policy.cipher_or(self.workspace.settings.store.cipher)

    def origin(self, run: str) -> RunOrigin:
        return require_origin(self._record.now().runs, run)

    def record_start(self, origin: RunOrigin) -> None:
        self._audit().append(BEGAN, **origin.to_record(), user=self.account.name)

    def record_drive(self, run: str, *, isolation: str) -> None:
        self._audit().append("run_driven", run=run, isolation=isolation, user=self.account.name)

    def make_run_key(self, run: RunFolder) -> None:
        period = period_of(self.clock.now())
        kek_id = run_kek_id(period=period)
        provider = next(iter(self.providers.values()))
        expires = period_end(period) + timedelta(seconds=run_retention_s(self.workspace.keys))
        provider.create(kek_id, period=period, expires=expires)
        context = run_key_context(run.id)
        envelope, key = new_envelope(provider, kek_id=kek_id, context=context, clock=self.clock)
        key.close()
        (run.path / "key.json").write_text(envelope.to_json())

    @contextmanager
    def serve(self, socket: Path, *, serves: Served) -> Iterator[None]:
        """Run the key agent on a socket, for the workers of one job."""
        agent = KeyAgent(
            self.workspace,
            providers=self.providers,
            audit=self._audit(),
            clock=self.clock,
            code=measure(),
        )
        with AgentServer(agent, socket_path=socket, clock=self.clock, serves=serves):
            yield

    def _facts_of(self, version: Version, *, root_hash: str) -> DataFacts:
        return facts_of(
            version,
            root_hash=root_hash,
            workspace=self.workspace,
            memory=FactsCache(self.workspace),
            recorded=self._record.now(),
            now=self.clock.now(),
        )

    def _audit(self) -> AuditLog:
        return AuditLog.open(self.workspace.audit, clock=self.clock)

    def _require_key(self, envelope: Envelope, *, data: str) -> None:
        """A destroyed key is said before any worker starts."""
        provider = self.providers.get(envelope.provider)
        if provider is None:
            raise KeyUnavailable(
                f"the key of {data} lies in {envelope.provider}, which is not configured here",
                hint="add it to keys/providers.toml (docs/keys.md)",
            )
        if any(info.kek_id == envelope.kek_id and info.state == "active" for info in provider.list()):
            return
        raise KeyUnavailable(
            f"the key {envelope.kek_id} of {data} was destroyed; its bytes cannot be read any more",
            hint="import the data again, if you still may",
        )


def _require_unchanged(dataset: Dataset) -> None:
    """One changed byte voids the approval. Larger sets, and those in an object store, are not read twice:
    what was changed fails its hash when it comes to the node's cache, and its tag when a worker reads it."""
    if sum(split.size_bytes for split in dataset.splits.values()) > REHASH_BYTES:
        return
    problems = dataset.verify().problems
    if problems:
        first = problems[0]
        raise ReviewVoid(
            f"{dataset.name} changed after its approval: {first.path}: {first.message}",
            hint=f"see `rsc data verify {dataset.name}`, then import the data again",
            path=first.path,
        )


def _lineage(dataset: Dataset, facts: DataFacts, *, envelope: Envelope) -> dict[str, Any]:
    """What a model card later says about where the model comes from."""
    return {
        "data": {"name": dataset.name, "version": dataset.version, "root_hash": dataset.root_hash},
        "review": {
            "state": facts.review.state,
            "single_person": facts.review.single_person,
            "approvers": list(facts.review.approvers),
            "policy_sha256": dataset.policy_sha256,
            "report_sha256": dataset.report_sha256,
        },
        "key_period": envelope.kek_id,
        "code": code_facts(),
    }

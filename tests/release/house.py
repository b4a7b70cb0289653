"""Data sets in each state of review, without the importer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.facts import data_facts
from rsc.release.agent.job_scope import Served
from rsc.review.approval.identity import create_identity, load_identity
from rsc.review.approval.verdict import ReviewFacts, approve, reject, review_facts
from rsc.review.policy import Policy, parse_policy, policy_to_toml
from rsc.store.dataset import Dataset, DatasetRef, DatasetWriter
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema


def require_namespaces() -> None:
    """Skip where this user gets no network namespace to try things in."""
    if shutil.which("unshare") is None:
        pytest.skip("the `unshare` command is not installed (Linux, util-linux)")
    tried = subprocess.run(["unshare", "-Urn", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this kernel gives this user no namespaces: {tried.stderr.strip()}")


SERVES = Served({"posts": 1, "unread": 1, "secret": 1}, frozenset({"r1"}))
"""What the workers of most tests may ask for."""
SENTENCE = "the quick brown fox of the private diary jumps over 13 lazy dogs"


class House:
    """A workspace with a log, a local key provider and an agent, and ways to fill it."""

    def __init__(self, workspace: Workspace, clock) -> None:
        self.workspace, self.clock = workspace, clock
        self.provider = LocalKeyProvider(workspace.keys, clock=clock)
        self.audit = AuditLog.open(workspace.audit, clock=clock)
        self.agent = self.new_agent()

    def new_agent(self) -> KeyAgent:
        providers = {self.provider.name: self.provider}
        return KeyAgent(self.workspace, providers=providers, audit=self.audit, clock=self.clock)

    def add(self, name: str = "posts", *, period: str = "2026-11", texts=(SENTENCE,), **policy) -> DatasetRef:
        rules = Policy(**{"single_person": True, "required_approvers": 1, **policy})
        kek_id = data_kek_id(name, period=period)
        self.provider.create(kek_id, period=period)
        context = data_key_context(name)
        envelope, key = new_envelope(self.provider, kek_id=kek_id, context=context, clock=self.clock)
        schema = Schema((Field("text", "string"),))
        with (
            key,
            DatasetWriter.create(
                self.workspace.data,
                name=name,
                schemas={"train": schema},
                key=key,
                envelope=envelope,
                clock=self.clock,
            ) as writer,
        ):
            writer.append("train", columns_from_records(schema, [{"text": text} for text in texts]))
            ref = writer.commit(policy=policy_to_toml(rules), report=b"{}", facts={"author": "ada"})
        self.audit.append("import", data=name, version=ref.version, root_hash=ref.root_hash)
        return ref

    def approve(self, name: str = "posts", *, by: str = "ada", verdict=approve) -> None:
        dataset = Dataset.open(self.workspace.data, name=name)
        folder: Path = self.workspace.identities
        has_key = (folder / f"{by}.key").exists()
        identity = load_identity(folder, name=by) if has_key else create_identity(folder, name=by)
        facts, policy = self.to_sign(name)
        signed = verdict(facts, policy=policy, identity=identity, note="", clock=self.clock)
        dataset.write_review(f"approvals/{by}.json", signed.to_json())
        self.audit.append(signed.verdict, data=name, root_hash=dataset.root_hash, approver=by)

    def to_sign(self, name: str = "posts") -> tuple[ReviewFacts, Policy]:
        """What a reviewer's signature binds, and the policy."""
        dataset = Dataset.open(self.workspace.data, name=name)
        policy = dataset.read_review("policy.toml")
        facts = review_facts(
            root_hash=dataset.root_hash,
            report=dataset.read_review("report.json"),
            policy=policy,
            decisions=b"",
            author=str(dataset.facts["author"]),
        )
        return facts, parse_policy(policy)

    def reject(self, name: str = "posts", *, by: str = "ada") -> None:
        self.approve(name, by=by, verdict=reject)

    def state(self, name: str = "posts") -> str:
        dataset = Dataset.open(self.workspace.data, name=name)
        facts = data_facts(dataset, identities=self.workspace.identities, now=self.clock.now())
        return facts.review.state

    def logged(self, kind: str) -> list[dict]:
        return [entry for entry in self.audit.entries() if entry["kind"] == kind]

"""Data sets in each state of review, without the importer."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rsc.accounts import Account
from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.decision import DataFacts
from rsc.release.agent.facts import data_facts
from rsc.release.agent.job_scope import Served
from rsc.release.record.log_record import replay
from rsc.release.record.run_origin import BEGAN, RunOrigin, used_before, used_in
from rsc.review.approval.verdict import ReviewFacts, approve, reject, review_facts
from rsc.review.policy import Policy, parse_policy, policy_to_toml
from rsc.store.dataset import Dataset, DatasetRef, DatasetWriter, list_versions
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from tests.people import account_of_person, person


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

    def new_agent(self, *, account: Account | None = None) -> KeyAgent:
        providers = {self.provider.name: self.provider}
        account = account or account_of_person("ada")
        return KeyAgent(
            self.workspace, providers=providers, audit=self.audit, clock=self.clock, account=account
        )

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
        identity = person(self.workspace, by, clock=self.clock)
        facts, policy = self.to_sign(name)
        signed = verdict(facts, policy=policy, identity=identity, note="", clock=self.clock)
        dataset.write_review(f"approvals/{by}.json", signed.to_json())
        uid = account_of_person(by).uid
        self.audit.append(signed.verdict, data=name, root_hash=dataset.root_hash, approver=by, uid=uid)

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

    def facts(self, dataset: Dataset) -> DataFacts:
        recorded, now = replay(self.audit.entries()), self.clock.now()
        return data_facts(dataset, workspace=self.workspace, recorded=recorded, now=now)

    def state(self, name: str = "posts") -> str:
        return self.facts(Dataset.open(self.workspace.data, name=name)).review.state

    def add_run(self, run: str, lineage: dict) -> RunOrigin:
        """Say in the log that a run has this lineage, as the controller does before its first key leaves.

        Roots that the lineage does not name are those of the versions here; of one that is gone, none.
        """
        lineage = self._with_roots(lineage)
        began = RunOrigin(
            run,
            "language",
            lineage.get("recipe_sha256", "0" * 64),
            tuple(used_in(lineage)),
            tuple(used_before(lineage, through="parent")),
            tuple(used_before(lineage.get("parent", {}), through="export_of")),
        )
        self.audit.append(BEGAN, **began.to_record(), user="ada")
        return began

    def _with_roots(self, lineage: dict) -> dict:
        told = dict(lineage)
        if "data" in told:
            name, version = told["data"]["name"], told["data"]["version"]
            is_here = version in list_versions(self.workspace.data, name)
            root = Dataset.open(self.workspace.data, name=name, version=version).root_hash if is_here else ""
            told["data"] = {"root_hash": root, **told["data"]}
        for part in ("parent", "export_of"):
            if part in told:
                told[part] = self._with_roots(told[part])
        return {**told, "mixed": [self._with_roots(part) for part in told.get("mixed", ())]}

    def logged(self, kind: str) -> list[dict]:
        return [entry for entry in self.audit.entries() if entry["kind"] == kind]

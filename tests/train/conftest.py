"""A workspace with approved text, and the `rsc` command run in it as a user would."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.events import read_lines
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope, period_of
from rsc.keys.providers.local import LocalKeyProvider
from rsc.review.approval.verdict import approve as sign_approval
from rsc.review.approval.verdict import review_facts
from rsc.review.policy import Policy, policy_to_toml
from rsc.runs.folder import RunFolder
from rsc.store.dataset import Dataset
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.writer import DatasetWriter
from rsc.train.metrics import losses_by_step
from tests.people import account_of_person, person
from tests.warm import Command, warm

TINY = (
    "model.trunk.width=32",
    "model.trunk.num_layers=2",
    "model.trunk.num_heads=2",
    "model.trunk.mlp_width=64",
    "data.sequence_length=32",
    "data.name=topics",
    "train.batch_size=4",
    "parallel.workers=2",
    "train.precision=fp32",
    "train.threads=1",
    "train.steps=12",
    "checkpoint.every=4",
    "checkpoint.asynchronous=false",  # what a test resumes from must not hang on the disk's pace
    "train.optimizer.warmup_steps=0",
)


RULES = Policy(single_person=True, required_approvers=1)


@dataclass(frozen=True)
class Rsc:
    """The command line in one workspace."""

    workspace: Workspace

    def start(self, *arguments: str) -> Command:
        environment = {**os.environ, "RSC_HOME": str(self.workspace.root), "RSC_DEBUG": "1"}
        return warm().start("rsc", *arguments, environment=environment)

    def run(self, *arguments: str, expect: int = 0, timeout_s: float = 120) -> dict[str, Any]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        assert process.returncode == expect, f"code {process.returncode}\n{out}\n{err}"
        return {"stderr": err, **(json.loads(out) if out.startswith("{") else {})}

    def train_command(self, *overrides: str) -> list[str]:
        return ["train", "language", *TINY, *overrides, "--json"]

    def train(self, *overrides: str, expect: int = 0, timeout_s: float = 120) -> dict[str, Any]:
        """Train the tiny model; later overrides win."""
        return self.run(*self.train_command(*overrides), expect=expect, timeout_s=timeout_s)

    def losses(self, run: str, *, rank: int = 0) -> dict[int, float]:
        return losses_by_step(self.workspace.runs / run / "metrics" / f"rank{rank}.jsonl")

    def metrics(self, run: str, *, rank: int = 0) -> list[dict[str, Any]]:
        return list(read_lines(self.workspace.runs / run / "metrics" / f"rank{rank}.jsonl"))

    def events(self, run: str) -> list[dict[str, Any]]:
        return RunFolder(self.workspace.runs / run).told()

    def events_of(self, run: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events(run) if event["kind"] == kind]

    def add_text(
        self,
        texts: list[str],
        *,
        name: str = "topics",
        approved: bool = True,
        by: str = "ada",
        rules: Policy = RULES,
    ) -> None:
        """A data set version, written and (if wanted) approved by a new reviewer, as one person may."""
        workspace, clock = self.workspace, SystemClock()
        provider = LocalKeyProvider(workspace.keys, clock=clock)
        period = period_of(clock.now())
        kek_id = data_kek_id(name, period=period)
        provider.create(kek_id, period=period)
        context = data_key_context(name)
        envelope, key = new_envelope(provider, kek_id=kek_id, context=context, clock=clock)
        schema = Schema((Field("text", "string"),))
        toml = policy_to_toml(rules)
        with (
            key,
            DatasetWriter.create(
                workspace.data, name=name, schemas={"train": schema}, key=key, envelope=envelope, clock=clock
            ) as writer,
        ):
            writer.append("train", columns_from_records(schema, [{"text": text} for text in texts]))
            ref = writer.commit(policy=toml, report=b"{}", facts={"author": "ada"})
        log = AuditLog.open(workspace.audit, clock=clock)
        log.append("import", data=name, version=ref.version, root_hash=ref.root_hash)
        if approved:
            self.approve(name=name, by=by, rules=rules)

    def approve(self, *, name: str = "topics", by: str = "ada", rules: Policy = RULES) -> None:
        dataset = Dataset.open(self.workspace.data, name=name)
        policy = dataset.read_review("policy.toml") or b""
        report = dataset.read_review("report.json") or b""
        facts = review_facts(
            root_hash=dataset.root_hash, report=report, policy=policy, decisions=b"", author="ada"
        )
        identity = person(self.workspace, by)
        signed = sign_approval(facts, policy=rules, identity=identity, note="", clock=SystemClock())
        dataset.write_review(f"approvals/{by}.json", signed.to_json())
        log = AuditLog.open(self.workspace.audit, clock=SystemClock())
        uid = account_of_person(by).uid
        log.append("approve", data=name, root_hash=dataset.root_hash, approver=by, uid=uid)


def topics(count: int) -> list[str]:
    """Real English text that every Python has."""
    return [str(text) for text in list(pydoc_data.topics.topics.values())[:count]]


@pytest.fixture(scope="session")
def rsc_with_text(tmp_path_factory: pytest.TempPathFactory) -> Rsc:
    """One workspace with approved text, shared by the tests that only add runs to it."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    rsc = Rsc(workspace)
    rsc.add_text(topics(60))
    return rsc


@pytest.fixture(scope="session")
def whole(rsc_with_text: Rsc) -> dict[int, float]:
    """Losses of an uninterrupted run: what every interrupted one must give, bit for bit."""
    losses = rsc_with_text.losses(rsc_with_text.train()["run"])
    assert sorted(losses) == list(range(1, 13))
    assert losses[12] < losses[1]
    return losses


@pytest.fixture
def fresh_rsc(tmp_path: Path) -> Rsc:
    """An empty workspace."""
    return Rsc(Workspace(tmp_path))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of moto's S3 with an empty bucket, and the environment that leads `rsc` there."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    place = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true"}
    for name, value in (login | place).items():
        monkeypatch.setenv(name, value)
    try:
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        listed = client.list_objects_v2(Bucket="bucket").get("Contents", [])
        for item in listed:  # moto's servers of one process share what they hold
            client.delete_object(Bucket="bucket", Key=item["Key"])
        yield client
    finally:
        server.stop()

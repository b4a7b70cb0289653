"""Key releases a second: decide, log durably, open the envelope, hand the descriptor over, take it.

    python benchmarks/keys.py [--json] [--quick] [--runs N]

`release` asks the agent over its unix socket from several client processes at once, each on one
connection; every release is a full one (files of the review looked at, decision, signed log record on
disk, key received and wiped, lease given back). `release_one_client` does it one after the other, so that
each waits for a sync of its own; `release_two_clients` lies between. The workspace lies on the file system
of the temporary folder: its sync rate is the limit of one client, and is measured beside as `fdatasync`.
`agent_cpu_ms` is CPU time of the agent for one release, and says what another machine would reach. The
agent is steady: the files are older than what release/agent/facts_cache.py asks for, as in all but its start.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from harness import Options, Report, alternate, main

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.client import KeyClient
from rsc.release.agent.custody import Custody
from rsc.release.agent.facts_cache import SETTLED_NS
from rsc.release.agent.job_scope import Served
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.server import AgentServer
from rsc.release.record.reviewers import enrol, open_identity
from rsc.review.approval.verdict import approve, review_facts
from rsc.review.policy import default_policy, policy_to_toml
from rsc.store.dataset import Dataset, DatasetWriter
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema

CASES = {"release": 8, "release_two_clients": 2, "release_one_client": 1}
REQUEST = KeyRequest("train", "bench", data="posts", version=1)


def measure(options: Options) -> Report:
    report = Report()
    releases = 200 if options.quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "home")
        fill(workspace)
        AuditLog.open(workspace.audit, clock=SystemClock())
        time.sleep(1.5 * SETTLED_NS / 1e9)
        found = {
            case: alternate(
                ["rsc", "fdatasync"] if case == "release_one_client" else ["rsc"],
                runs=options.runs,
                measure=lambda subject, clients=clients: rate(workspace, subject, clients, releases),
            )
            for case, clients in CASES.items()
        }
    for case, subjects in found.items():
        for subject, metrics in subjects.items():
            for metric, values in metrics.items():
                report.add(case, metric=metric, subject=subject, values=values)
    report.notes.append("8, 2 and 1 client processes; local key folder without passphrase")
    return report


def rate(workspace: Workspace, subject: str, clients: int, releases: int) -> dict[str, float]:
    if subject == "fdatasync":
        return {"per_s": sync_rate(workspace.root / "sync", releases)}
    context = multiprocessing.get_context("fork")
    socket_path = workspace.root / "agent.sock"
    ready, done, cpu_s = context.Event(), context.Event(), context.Value("d")
    agent = context.Process(target=serve, args=(workspace, socket_path, ready, done, cpu_s))
    agent.start()
    ready.wait()
    gate = context.Barrier(clients + 1)
    asking = [
        context.Process(target=ask, args=(socket_path, gate, releases // clients)) for _ in range(clients)
    ]
    for process in asking:
        process.start()
    gate.wait()
    started = time.perf_counter()
    for process in asking:
        process.join()
    seconds = time.perf_counter() - started
    done.set()
    agent.join()
    if any(process.exitcode for process in asking):
        sys.exit("a client failed; its message is above")
    num_released = clients * (releases // clients)
    return {"per_s": num_released / seconds, "agent_cpu_ms": cpu_s.value / num_released * 1e3}


def serve(workspace: Workspace, socket_path: Path, ready, done, cpu_s) -> None:  # type: ignore[no-untyped-def]
    clock = SystemClock()
    providers = {"local": LocalKeyProvider(workspace.keys)}
    agent = KeyAgent(
        workspace, providers=providers, audit=AuditLog.open(workspace.audit, clock=clock), clock=clock
    )
    serves = Served({"posts": 1}, frozenset())
    with AgentServer(agent, socket_path=socket_path, clock=clock, serves=serves):
        ready.set()
        started = time.process_time()
        done.wait()
        cpu_s.value = time.process_time() - started


def ask(socket_path: Path, gate: Barrier, releases: int) -> None:
    with KeyClient(socket_path) as client:
        gate.wait()
        for _ in range(releases):
            client.end(client.release(REQUEST))


def sync_rate(path: Path, writes: int) -> float:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    started = time.perf_counter()
    for _ in range(writes):
        os.write(fd, bytes(600))
        os.fdatasync(fd)
    os.close(fd)
    return writes / (time.perf_counter() - started)


def fill(workspace: Workspace) -> None:
    """One small approved data set."""
    clock, provider = SystemClock(), LocalKeyProvider(workspace.keys)
    kek_id, context = data_kek_id("posts", period="2026-11"), data_key_context("posts")
    provider.create(kek_id, period="2026-11")
    envelope, key = new_envelope(provider, kek_id=kek_id, context=context)
    schema, policy = Schema((Field("text", "string"),)), default_policy(single_person=True)
    house = Custody(workspace)
    identity = open_identity(house, enrol(house, passphrase=None, name="bench"), passphrase=None)
    with (
        key,
        DatasetWriter.create(
            workspace.data, name="posts", schemas={"train": schema}, key=key, envelope=envelope, clock=clock
        ) as writer,
    ):
        writer.append("train", columns_from_records(schema, [{"text": "hello"}]))
        ref = writer.commit(policy=policy_to_toml(policy), report=b"{}", facts={"author": "bench"})
    house.audit.append("import", data="posts", version=ref.version, root_hash=ref.root_hash)
    dataset = Dataset.open(workspace.data, name="posts")
    facts = review_facts(
        root_hash=dataset.root_hash,
        report=b"{}",
        policy=policy_to_toml(policy),
        decisions=b"",
        author="bench",
    )
    signed = approve(facts, policy=policy, identity=identity, note="", clock=clock)
    dataset.write_review("approvals/bench.json", signed.to_json())
    house.audit.append("approve", data="posts", root_hash=ref.root_hash, approver="bench")


if __name__ == "__main__":
    main(__doc__.splitlines()[0], measure)

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from house import SERVES, House

from rsc.accounts import Account
from rsc.audit.witness import Witness
from rsc.config import Workspace
from rsc.errors import (
    ConfigError,
    GateRefused,
    IntegrityError,
    IsolationRefused,
    KeyUnavailable,
    ReviewMissing,
    ReviewRejected,
    ReviewVoid,
    RscError,
)
from rsc.keys.envelope import data_key_context, new_envelope, open_envelope, run_key_context
from rsc.release.agent.agent import Asking
from rsc.release.agent.client import KeyClient, hold_keys, request_key
from rsc.release.agent.facts_cache import SETTLED_NS, TRUSTED_S, FactsCache
from rsc.release.agent.handover import carriers
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.server import AgentServer
from rsc.release.record.log_record import replay
from rsc.review.approval.identity import create_identity
from rsc.review.approval.verdict import approve
from rsc.store.dataset import Dataset
from tests.people import enrol, person

TRAIN = KeyRequest("train", "ada", data="posts")


def true_key(house, name: str = "posts") -> bytes:
    envelope = Dataset.open(house.workspace.data, name=name).envelope()
    with open_envelope(house.provider, envelope, context=data_key_context(name)) as key:
        return bytes(key.view)


def test_a_release_gives_the_key_and_is_in_the_log(house):
    house.add()
    house.approve()
    with house.agent.release(TRAIN) as key:
        assert bytes(key.view) == true_key(house)
    (entry,) = house.logged("key_released")
    assert (entry["data"], entry["version"], entry["purpose"], entry["user"]) == ("posts", 1, "train", "ada")
    assert entry["notes"] == [
        "single-person review",
        "not isolated (best-effort): it sent no isolation report",
    ]
    assert house.audit.verify().is_intact


def test_a_denial_is_one_sentence_with_code_3_and_in_the_log(house):
    house.add()
    with pytest.raises(ReviewMissing, match="posts is in review") as refusal:
        house.agent.release(TRAIN)
    assert refusal.value.exit_code == 3
    assert "\n" not in refusal.value.message
    (entry,) = house.logged("key_denied")
    assert entry["reason"] == refusal.value.message


def test_a_key_whose_release_cannot_be_logged_is_not_handed_over(house, monkeypatch):
    house.add()
    house.approve()
    opened = []

    def fail(records):
        list(records)
        raise OSError(28, "No space left on device")

    original = house.agent._open
    monkeypatch.setattr(house.agent, "_open", lambda asked: opened.append(original(asked)) or opened[-1])
    monkeypatch.setattr(house.audit, "append_many", fail)
    with pytest.raises(OSError, match="No space"):
        house.agent.release(TRAIN)
    with pytest.raises(KeyUnavailable, match="wiped"):
        _ = opened[0].view


@pytest.mark.parametrize("file", ["policy.toml", "report.json", "decisions.json"])
def test_one_changed_byte_of_the_review_voids_it_at_the_next_release(house, file):
    house.add()
    house.approve()
    house.agent.release(TRAIN).close()
    dataset = Dataset.open(house.workspace.data, name="posts")
    dataset.write_review(file, (dataset.read_review(file) or b"") + b"\n")
    with pytest.raises(ReviewVoid):
        house.agent.release(TRAIN)


def test_an_approval_by_a_key_that_is_not_enrolled_counts_for_nothing(house):
    """Made in the folder of identities, signed, and even in the log: only an enrolment makes a reviewer."""
    house.add()
    identity = create_identity(house.workspace.identities, name="eve")
    facts, policy = house.to_sign()
    signed = approve(facts, policy=policy, identity=identity, note="", clock=house.clock)
    dataset = Dataset.open(house.workspace.data, name="posts")
    dataset.write_review("approvals/eve.json", signed.to_json())
    house.audit.append("approve", data="posts", root_hash=dataset.root_hash, approver="eve")
    with pytest.raises(ReviewMissing, match="nobody is enrolled under the key of eve"):
        house.agent.release(TRAIN)


def test_an_enrolment_that_nobody_enrolled_countersigned_counts_for_nothing(house):
    house.add()
    house.approve(by="ada")
    house.reject(by="ada")
    stranger = create_identity(house.workspace.identities, name="eve")
    enrol(house.audit, stranger, account=Account(70003, "eve"), by=stranger)  # by itself, but not the first
    recorded = replay(house.audit.entries())
    assert [each.name for each in recorded.reviewers.values()] == ["ada"]
    assert len(recorded.refused_enrolments) == 1


def test_an_approval_that_the_log_does_not_know_counts_for_nothing(house):
    """A file carried in from a copy, or signed around the commands."""
    house.add()
    identity = person(house.workspace, "ada", clock=house.clock)
    facts, policy = house.to_sign()
    signed = approve(facts, policy=policy, identity=identity, note="", clock=house.clock)
    Dataset.open(house.workspace.data, name="posts").write_review("approvals/ada.json", signed.to_json())
    with pytest.raises(ReviewMissing):
        house.agent.release(TRAIN)


def test_a_rejection_holds_whatever_becomes_of_its_file(house):
    house.add(single_person=False, required_approvers=1)
    house.approve(by="ben")
    house.agent.release(TRAIN).close()
    house.reject(by="cy")
    (file,) = house.workspace.data.rglob("approvals/cy.json")
    file.unlink()
    with pytest.raises(ReviewRejected, match="cy rejected it"):
        house.agent.release(TRAIN)
    with pytest.raises(ReviewRejected, match="cy rejected it"):
        house.new_agent().release(TRAIN)
    house.approve(by="cy")  # cy has looked again
    house.agent.release(TRAIN).close()


def test_a_version_that_the_log_does_not_know_with_its_root_is_refused(house):
    """Also for a review, which needs no approval: nobody knows where these bytes come from."""
    house.add("posts")
    house.add("letters")
    house.approve("posts")
    shutil.move(house.workspace.data / "letters/v0001", house.workspace.data / "posts/v0002")
    root = house.workspace.data / "posts/v0002/root.json"
    root.write_text(root.read_text().replace('"letters"', '"posts"'))
    for purpose in ("train", "review"):
        with pytest.raises(RscError) as refused:
            house.agent.release(KeyRequest(purpose, data="posts", version=2))
        assert "does not know posts version 2" in refused.value.message


@pytest.mark.parametrize("names", [("LOGNAME", "USER"), ("USERNAME", "LNAME", "SUDO_USER")])
def test_who_may_train_is_asked_of_the_kernel(house, names, monkeypatch):
    house.add(who_may_train=["carol"])
    house.approve()
    for name in names:
        monkeypatch.setenv(name, "carol")
    for asked_as in ("carol", ""):
        with pytest.raises(GateRefused, match="does not let ada train"):
            house.agent.release(replace(TRAIN, user=asked_as, uid=70005))
    house.new_agent(account=Account(70005, "carol")).release(TRAIN).close()
    (release,) = house.logged("key_released")
    assert (release["user"], release["uid"]) == ("carol", 70005)


def test_a_log_that_its_witness_contradicts_releases_nothing(house, tmp_path):
    """Cut back to before a rejection, a log passes alone; the witness saw more of it."""
    house.add()
    house.approve()
    kept = tmp_path / "audit"
    shutil.copytree(house.workspace.audit, kept)
    house.reject()
    witness = tmp_path / "witness"
    (house.workspace.root / "config.toml").write_text(f'[audit]\nwitness = "{witness}"\n')
    workspace = Workspace(house.workspace.root)

    def ask() -> None:
        again = House(workspace, house.clock)
        again.agent.release(TRAIN).close()

    with pytest.raises(GateRefused, match="holds no checkpoint"):
        ask()
    Witness(witness).add(house.audit.checkpoint(), verifier=house.audit.verifier)
    with pytest.raises(ReviewRejected):
        ask()
    shutil.rmtree(house.workspace.audit)
    shutil.copytree(kept, house.workspace.audit)
    with pytest.raises(GateRefused, match="not the one that its witness saw"):
        ask()
    for number in range(60):  # longer than what the witness saw, and still another log
        House(workspace, house.clock).audit.append("filler", number=number)
    with pytest.raises(GateRefused, match="not the one that its witness saw"):
        ask()


def test_a_record_that_was_changed_on_disk_decides_nothing(house):
    """Of the published log too, whose entries are not hashed when they are read."""
    house.add()
    house.reject()
    house.audit.checkpoint()
    (bundle,) = [path for path in (house.workspace.audit / "tile/entries").rglob("*") if path.is_file()]
    content = bundle.read_bytes()
    assert content.count(b'"kind":"reject"') == 1
    bundle.write_bytes(content.replace(b'"kind":"reject"', b'"kind":"nought"'))
    with pytest.raises(IntegrityError, match="do not add up"):
        House(house.workspace, house.clock).agent.release(TRAIN)


def test_a_destroyed_key_is_refused(house):
    house.add()
    house.approve()
    house.provider.destroy("data/posts/2026-11")
    with pytest.raises(KeyUnavailable, match="was destroyed on 2026-11-21"):
        house.agent.release(TRAIN)
    assert house.logged("key_denied")


def test_the_key_of_a_run(house):
    run = house.workspace.runs / "r1"
    run.mkdir(parents=True)
    house.provider.create("runs/2026-11", period="2026-11")
    envelope, key = new_envelope(house.provider, kek_id="runs/2026-11", context=run_key_context("r1"))
    (run / "run.json").write_text(json.dumps({"id": "r1"}))
    (run / "key.json").write_text(envelope.to_json())
    house.add_run("r1", {})
    with house.agent.release(KeyRequest("checkpoint", "ada", run="r1")) as released:
        assert released.matches(key)
    for unknown in ("r2", "../keys", "r1/../r1"):
        with pytest.raises(GateRefused, match="does not say what run"):
            house.agent.release(KeyRequest("checkpoint", "ada", run=unknown))


@pytest.mark.parametrize("carrier", ["memfd_secret", "memfd", "socket"])
def test_each_carrier_brings_the_key_over_the_socket(house, tmp_path, carrier):
    if carrier not in carriers():
        pytest.skip(f"this kernel has no {carrier}")
    house.add()
    house.approve()
    path = tmp_path / "agent.sock"
    with AgentServer(house.agent, socket_path=path, clock=house.clock, serves=SERVES, carrier=carrier):
        with request_key(path, TRAIN) as key:
            assert bytes(key.view) == true_key(house)
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_agent_takes_the_user_from_the_kernel(house, server):
    with request_key(server.path, KeyRequest("train", "somebody else", data="posts")):
        pass
    (entry,) = house.logged("key_released")
    assert entry["user"] != "somebody else"


def test_a_refusal_crosses_the_socket_with_its_class_and_hint(house, server):
    house.add("unread")
    with pytest.raises(ReviewMissing, match="unread is in review") as refusal:
        request_key(server.path, KeyRequest("train", "ada", data="unread"))
    assert refusal.value.hint == "look at it with `rsc data review unread`"


def test_a_process_outside_the_sandbox_is_refused_whatever_its_report_says(house, server):
    house.add("secret", isolation="required")
    house.approve("secret")
    report = {"is_ok": True, "findings": [{"name": "tcp", "is_ok": True, "detail": "ENETUNREACH"}]}
    clean = {
        "findings": [{"name": n, "is_ok": True, "detail": ""} for n in ("core dumps", "memory is private")]
    }
    with pytest.raises(IsolationRefused, match="shares the agent's network"):
        request_key(server.path, KeyRequest("train", "ada", data="secret", isolation=report, hygiene=clean))


def test_a_socket_path_longer_than_an_address(house, tmp_path):
    house.add()
    house.approve()
    folder = tmp_path / ("a-long-name-" * 8) / "run"
    folder.mkdir(parents=True)
    with AgentServer(house.agent, socket_path=folder / "agent.sock", clock=house.clock, serves=SERVES):
        request_key(folder / "agent.sock", TRAIN).close()


def test_garbage_on_the_socket_ends_only_that_connection(house, server):
    noises = [b"\n", b"{}\n", b"[1]\n", b'{"op": "end"}\n', b"\xff" * 70000]
    requests = [{"x": 1}, [], {"purpose": [], "user": "a"}, {"purpose": "train", "user": "a", "data": {}}]
    noises += [json.dumps({"op": "release", "request": request}).encode() + b"\n" for request in requests]
    noises += [
        json.dumps({"op": "release", "request": {**TRAIN.to_json(), "isolation": report}}).encode() + b"\n"
        for report in ({"findings": [7]}, {"findings": 7}, {"findings": [{"name": "x"}]})
    ]
    for noise in noises:
        with KeyClient(server.path) as client, contextlib.suppress(ConnectionError):
            client._connection.sendall(noise)
            client._connection.shutdown(1)
            assert b'"ok":true' not in client._connection.recv(1000)
    request_key(server.path, TRAIN).close()


def test_nobody_at_the_socket_is_said(tmp_path):
    with pytest.raises(GateRefused, match="does not answer"):
        request_key(tmp_path / "agent.sock", TRAIN)


HOLDER = """
import sys
from pathlib import Path
from rsc.release.agent.client import hold_keys, KeyClient
from rsc.release.agent.request import KeyRequest
with KeyClient(Path(sys.argv[1])) as client:
    held = client.release(KeyRequest("train", "ada", data="posts"))
    print(held.lease, flush=True)
    sys.stdin.readline()
"""


def start_holder(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip().isdigit()
    return process


def test_the_holder_of_an_expired_lease_is_killed(house, server):
    holder = start_holder(server.path)
    server.end_overdue()
    assert holder.poll() is None
    house.clock.advance(181)
    server.end_overdue()
    assert holder.wait(timeout=10) == -9
    (entry,) = house.logged("lease_ended")
    assert entry["how"] == "expired"
    assert entry["release"] == house.logged("key_released")[0]["index"]


def test_a_holder_that_dies_ends_its_lease(house, server):
    holder = start_holder(server.path)
    holder.kill()
    holder.wait()
    server.end_overdue()
    assert house.logged("lease_ended")[0]["how"] == "gone"


def _measured():
    return {"is_ok": False, "findings": []}, {"findings": []}


def test_leases_are_renewed_and_given_back(house, server):
    rounds = []
    done = threading.Event()

    def measure():
        if rounds:  # the first is before the request, where a silence of 100 s would have it hung up on
            house.clock.advance(100)
        rounds.append(1)
        if len(rounds) == 5:
            done.set()
        return _measured()

    with hold_keys(server.path, {"data": TRAIN}, measure=measure, renew_s=0.01) as keys:
        assert done.wait(20)
        server.end_overdue()
        assert bytes(keys["data"].view) == true_key(house)
    server.end_overdue()
    assert [entry["how"] for entry in house.logged("lease_ended")] == ["returned"]


def test_a_renewal_that_is_denied_wipes_the_keys(house, server):
    lost = []
    told = threading.Event()

    def on_lost(error):
        lost.append(error)
        told.set()

    with hold_keys(server.path, {"data": TRAIN}, measure=_measured, on_lost=on_lost, renew_s=0.01) as keys:
        assert keys["data"].view
        house.provider.destroy("data/posts/2026-11")
        assert told.wait(20)
        with pytest.raises(KeyUnavailable, match="wiped"):
            _ = keys["data"].view
    assert isinstance(lost[0], KeyUnavailable)
    assert house.logged("lease_denied")


def test_a_lease_belongs_to_the_process_that_asked(house, server):
    holder = start_holder(server.path)
    number = house.logged("key_released")[0]["index"]
    with KeyClient(server.path) as client:
        with pytest.raises(GateRefused, match="no lease"):
            client._ask({"op": "renew", "lease": number, "request": TRAIN.to_json()})
        client._ask({"op": "end", "lease": number})
    assert not house.logged("lease_ended")
    holder.kill()
    holder.wait()


def test_an_agent_that_remembers_sees_every_change_and_every_end(house):
    """The same agent asked again and again, while bytes and time go on."""
    house.add(approval_valid="2d", retention="9d")
    with pytest.raises(ReviewMissing):
        house.agent.release(TRAIN)
    house.approve()
    for _ in range(3):
        house.agent.release(TRAIN).close()
    dataset = Dataset.open(house.workspace.data, name="posts")
    (name,) = [name for name in dataset.list_review() if name.startswith("approvals/")]
    content = dataset.read_review(name)
    dataset.write_review(name, content.replace(b'"note": ""', b'"note": "x"'))
    with pytest.raises(ReviewMissing):
        house.agent.release(TRAIN)
    dataset.write_review(name, content)
    house.agent.release(TRAIN).close()
    house.clock.advance(2 * 86400 - 1)
    house.agent.release(TRAIN).close()
    house.clock.advance(1)
    with pytest.raises(ReviewVoid, match="run out"):
        house.agent.release(TRAIN)
    house.clock.advance(-1)
    house.agent.release(TRAIN).close()
    house.reject(by="bob")
    with pytest.raises(GateRefused, match="bob rejected it"):
        house.agent.release(TRAIN)


def find_first(house, memory):
    return memory.find("posts", version=1, recorded=replay(house.audit.entries()), now=house.clock.now())


@pytest.fixture
def steady(house):
    """A memory whose two clocks are moved by hand: (memory, its clocks)."""
    house.add(approval_valid="2d")
    house.approve()
    clocks = {"stamp_ns": time.time_ns() + 3 * SETTLED_NS, "elapsed_s": 0.0}
    memory = FactsCache(
        house.workspace, stamp_ns=lambda: clocks["stamp_ns"], elapsed_s=lambda: clocks["elapsed_s"]
    )
    return memory, clocks


def test_a_conclusion_is_recalled_only_while_nothing_it_came_from_changed(house, steady):
    memory, _ = steady
    review = house.workspace.data / "posts/v0001/review"

    def find():
        return memory.find(
            "posts", version=None, recorded=replay(house.audit.entries()), now=house.clock.now()
        )

    first = find()
    assert find() is first
    (approval,) = (review / "approvals").glob("*.json")
    content = approval.read_bytes()
    before = approval.stat()
    approval.write_bytes(content.replace(b'"note": ""', b'"not_": ""'))  # as many bytes
    os.utime(approval, ns=(before.st_atime_ns, before.st_mtime_ns))  # and the old time
    with pytest.raises(ReviewVoid):
        find()
    approval.write_bytes(content)
    assert find().facts == first.facts
    for change in (
        lambda: (review.parent / "key.json").touch(),
        lambda: person(house.workspace, "eve", clock=house.clock),
        lambda: house.reject(by="bob"),
        lambda: house.add(),  # a second version
    ):
        kept = find()
        assert find() is kept
        change()
        assert find() is not kept
    assert find().dataset.version == 2


def test_a_conclusion_from_files_of_this_moment_is_not_kept(house, steady):
    memory, clocks = steady
    clocks["stamp_ns"] = time.time_ns()
    first = find_first(house, memory)
    assert find_first(house, memory) is not first


def test_no_conclusion_is_kept_for_long_or_over_the_end_of_an_approval(house, steady):
    memory, clocks = steady
    first = find_first(house, memory)
    house.clock.advance(2 * 86400)
    assert find_first(house, memory).facts.review.state == "expired"
    house.clock.advance(-2 * 86400)
    first = find_first(house, memory)
    clocks["elapsed_s"] = TRUSTED_S
    assert find_first(house, memory) is not first


def test_answers_to_many_are_logged_in_one_commit_each_in_its_place(house, monkeypatch):
    house.add()
    house.approve()
    commits = []
    original = house.audit.append_many
    monkeypatch.setattr(house.audit, "append_many", lambda records: commits.append(1) or original(records))
    unknown = replace(TRAIN, data="nothing")
    answers = house.agent.grant([Asking(request, None, {}) for request in (TRAIN, unknown, TRAIN)])
    assert len(commits) == 1
    assert isinstance(answers[1], ConfigError)
    for number, answer in ((0, answers[0]), (2, answers[2])):
        with answer.key as key:
            assert bytes(key.view) == true_key(house)
        assert house.logged("key_released")[number // 2]["index"] == answer.number


def test_a_client_that_reads_no_answers_is_hung_up_on_and_holds_up_nobody(house, server):
    with KeyClient(server.path) as deaf, contextlib.suppress(OSError):
        deaf._connection.settimeout(0.2)
        for _ in range(20000):
            deaf._connection.sendall(b'{"op": "end", "lease": 1}\n')
    request_key(server.path, TRAIN).close()

"""Each promise of `rsc verify` is broken on purpose, and the check has to see it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from house import SERVES, House
from test_agent import TRAIN, start_holder

from rsc.release import promises
from rsc.release.server import AgentServer
from rsc.release.verify import verify
from rsc.store.dataset import Dataset


def rows(house: House) -> dict:
    found = verify(house.workspace, providers={"local": house.provider}, audit=house.audit, clock=house.clock)
    return {row.name: row for row in found}


@pytest.fixture
def busy(house, monkeypatch) -> House:
    """A workspace where everything that has a promise has happened once."""
    monkeypatch.setattr(promises, "_LISTEN_CODE", 'print(\'{"modules": 0, "attempts": []}\')')
    house.add()
    house.approve()
    house.agent.release(TRAIN).close()
    return house


def test_all_is_kept_and_since_when_is_remembered(busy):
    first = rows(busy)
    assert {row.state for row in first.values()} == {"kept"}
    busy.clock.advance(3600)
    assert rows(busy)["log intact"].since == first["log intact"].since
    assert len(busy.logged("promise")) == len(first)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("data/posts/v0001/train/copy.txt", b"dear diary"),
        ("data/posts/v0001/train/000000009.rsc", b"\x89RSC\r\n\x1a\n" + b"dear diary, " * 2000),
        ("data/notes.txt", b"dear diary"),
        ("cache/page", b"dear diary"),
        ("runs/r1/checkpoints/step-1/weights.bin", b"dear diary"),
    ],
)
def test_plaintext_at_rest_is_found(busy, path, content):
    target = busy.workspace.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    row = rows(busy)["no plaintext at rest"]
    assert row.state == "broken"
    assert path in row.told
    assert row.since is not None
    assert row.data == (("posts",) if "posts" in path else row.data)


def test_a_changed_review_is_found_with_its_data(busy):
    dataset = Dataset.open(busy.workspace.data, name="posts")
    dataset.write_review("report.json", b"{ }")
    row = rows(busy)["reviews valid"]
    assert (row.state, row.data) == ("broken", ("posts",))
    assert "the report of posts version 1 was changed after the import" in row.told


def test_a_changed_policy_is_found(busy):
    dataset = Dataset.open(busy.workspace.data, name="posts")
    dataset.write_review("policy.toml", dataset.read_review("policy.toml") + b"\n")
    assert rows(busy)["reviews valid"].state == "broken"


def test_a_key_older_than_its_policy_is_found(busy):
    busy.clock.advance(91 * 86400)
    row = rows(busy)["keys within retention"]
    assert (row.state, row.data) == ("broken", ("posts",))
    assert row.since == busy.clock.now().replace(year=2027, month=2, day=19)


def test_a_changed_record_of_the_log_is_found(busy):
    tail = busy.workspace.audit / "tail"
    tail.write_bytes(tail.read_bytes().replace(b'"purpose":"train"', b'"purpose":"brain"'))
    found = rows(busy)
    assert found["log intact"].state == "broken"
    assert "record 2: the entry does not match its hash" in found["log intact"].told


def test_a_release_without_approval_is_found(busy):
    facts = {"data": "talks", "user": "eve", "purpose": "train", "root_hash": "cd" * 32}
    busy.audit.append("key_released", **facts)
    row = rows(busy)["no release without approval"]
    assert (row.state, row.data) == ("broken", ("talks",))
    assert "eve got the key of talks to train with 0 of 1 approvals" in row.told


def test_a_release_after_a_rejection_is_found(busy):
    root = Dataset.open(busy.workspace.data, name="posts").root_hash
    busy.audit.append("reject", data="posts", root_hash=root, approver="bob")
    assert rows(busy)["no release without approval"].state == "kept"
    busy.audit.append("key_released", data="posts", user="eve", purpose="train", root_hash=root)
    assert rows(busy)["no release without approval"].state == "broken"


def test_a_running_job_that_lost_its_isolation_is_found(busy, tmp_path):
    """A holder in no sandbox: fine under best-effort, and broken once its policy is known as required."""
    busy.clock.advance((datetime.now(UTC) - busy.clock.now()).total_seconds())  # as the kernel sees it
    with AgentServer(busy.agent, socket_path=tmp_path / "agent.sock", clock=busy.clock, serves=SERVES):
        holder = start_holder(tmp_path / "agent.sock")
        now = rows(busy)["running jobs isolated"]
        assert now.state == "kept"
        assert "1 processes hold keys, 1 of them open (their policies say best-effort)" in now.told
        dataset = Dataset.open(busy.workspace.data, name="posts")
        stricter = dataset.read_review("policy.toml").replace(b'"best-effort"', b'"required"')
        dataset.write_review("policy.toml", stricter)
        row = rows(busy)["running jobs isolated"]
        assert (row.state, row.data) == ("broken", ("posts",))
        assert "it shares the agent's network" in row.told
        holder.kill()
        holder.wait()
        assert rows(busy)["running jobs isolated"].state == "kept"


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("keys/data/posts/2026-11.kek", 0o640),
        ("audit/log.key", 0o604),
        ("identities/ada.key", 0o644),
        ("identities/ada.pub", 0o666),
        (".", 0o770),
    ],
)
def test_a_file_that_others_can_read_or_change_is_found(busy, path, mode):
    (busy.workspace.root / path).chmod(mode)
    row = rows(busy)["files private"]
    assert row.state == "broken"
    assert f"has mode {mode:04o}" in row.told


def test_no_light_module_connects_when_imported(house):
    assert rows(house)["nothing phones out"].state == "kept"


def test_a_module_that_connects_is_found():
    """The listening code itself, with one module that looks up a name and one that connects."""
    bad = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    tried = f"import rsc\ntry:\n    {bad}\nexcept OSError: pass\n"
    code = promises._LISTEN_CODE.replace("import rsc\n", tried)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "socket.connect" in done.stdout, done.stderr

"""Each promise of `rsc verify` is broken on purpose, and the check has to see it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from house import SERVES, House
from test_agent import TRAIN, start_holder

from rsc.audit.log import AuditLog
from rsc.errors import ConfigError
from rsc.release.agent.server import AgentServer
from rsc.release.lifecycle.expire import expire
from rsc.release.verify import checks, completeness
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.verify import verify
from rsc.store import verify as store_verify
from rsc.store.dataset import Dataset
from rsc.store.format.footer import HEADER_BYTES
from rsc.store.verify import VerifyPart


def rows(house: House, *, read: VerifyPart | None = None) -> dict:
    found = verify(
        house.workspace,
        providers={"local": house.provider},
        audit=house.audit,
        clock=house.clock,
        read=read,
    )
    return {row.name: row for row in found}


@pytest.fixture
def busy(house, monkeypatch) -> House:
    """A workspace where everything that has a promise has happened once."""
    monkeypatch.setattr(checks, "_LISTEN_CODE", 'print(\'{"modules": 0, "attempts": []}\')')
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
    assert "record 3: the entry does not match its hash" in found["log intact"].told


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
        assert ("it shares the agent's network" if os.geteuid() == 0 else "cannot be looked at") in row.told
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
    code = checks._LISTEN_CODE.replace("import rsc\n", tried)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "socket.connect" in done.stdout, done.stderr


def flip_inside_a_shard(house: House, *, name: str = "posts") -> None:
    """One bit behind the header: neither the end of the shard nor a manifest tells."""
    shard = house.workspace.data / f"{name}/v0001/train/000000000.rsc"
    with shard.open("r+b") as file:
        file.seek(HEADER_BYTES + 10)
        byte = file.read(1)[0]
        file.seek(HEADER_BYTES + 10)
        file.write(bytes([byte ^ 1]))


def test_a_bit_inside_a_shard_is_found_by_reading_and_told_until_all_is_read_again(busy):
    assert rows(busy, read=VerifyPart())["bytes whole"].state == "kept"
    flip_inside_a_shard(busy)
    before = rows(busy)
    assert before["versions whole"].told.endswith("as recorded; --read-data reads every byte")
    assert before["versions whole"].state == "kept"
    assert "bytes whole" not in before
    row = rows(busy, read=VerifyPart())["bytes whole"]
    assert (row.state, row.data) == ("broken", ("posts",))
    assert row.told == "posts/v0001/train/000000000.rsc: MiB 0 of the file does not have its recorded hash"
    busy.clock.advance(3600)
    later = rows(busy)["bytes whole"]
    assert (later.state, later.since) == ("broken", row.since)
    assert "found before; `rsc verify --read-data` looks again" in later.told
    flip_inside_a_shard(busy)
    assert rows(busy, read=VerifyPart(1, 2))["bytes whole"].state == "broken", (
        "half of it says nothing against it"
    )
    assert rows(busy, read=VerifyPart())["bytes whole"].state == "kept"


def test_each_shard_is_in_one_part_and_damage_is_found_in_it(busy):
    for name in ("b", "c", "d", "e"):
        busy.add(name)
        flip_inside_a_shard(busy, name=name)
    found = [
        completeness.bytes_whole(
            Checked(busy.workspace, {"local": busy.provider}, busy.audit, busy.clock.now(), part)
        )
        for part in (VerifyPart(1, 3), VerifyPart(2, 3), VerifyPart(3, 3))
    ]
    assert sorted(name for row in found for name in row.data) == ["b", "c", "d", "e"]


def test_shards_of_ended_data_are_not_missed(busy):
    expire(
        busy.workspace,
        "posts",
        providers={"local": busy.provider},
        audit=busy.audit,
        user="ada",
    )
    assert rows(busy, read=VerifyPart())["bytes whole"].told == "every byte of 0 shards read, 0 B"


def test_a_bad_sector_is_told_with_its_file(busy, monkeypatch):
    def fail(fd: int, buffers: list, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    dataset = Dataset.open(busy.workspace.data, name="posts")
    check = store_verify._check_bytes

    def with_bad_sector(source, record) -> None:
        monkeypatch.setattr(os, "preadv", fail)
        check(source, record)

    monkeypatch.setattr(store_verify, "_check_bytes", with_bad_sector)
    (problem,) = dataset.verify().problems
    assert (problem.path, problem.message) == (
        "posts/v0001/train/000000000.rsc",
        "cannot be read: Input/output error",
    )


@pytest.mark.parametrize("text", ["", "2", "0/7", "8/7", "1/0", "a/b", "-1/7"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="is no part of the shards"):
        VerifyPart.parse(text)


def test_the_log_is_read_three_times_by_all_checks_together(busy, monkeypatch):
    reads = []
    entries = AuditLog.entries
    monkeypatch.setattr(
        AuditLog, "entries", lambda log, **options: reads.append(1) or entries(log, **options)
    )
    rows(busy, read=VerifyPart())
    assert len(reads) == 3

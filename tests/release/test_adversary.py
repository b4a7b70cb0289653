"""Attempts on the promises that no other test makes; docs/threat-model.md names each with its answer."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from house import SERVES, House

from rsc.cluster.sandbox import syscalls
from rsc.errors import GateRefused, IntegrityError, KeyUnavailable, ReviewMissing, ReviewVoid
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.keys.secret import SecretKey
from rsc.release.agent.client import KeyClient
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.server import AgentServer
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.retention import sweep
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.checks import files_private, reviews_valid
from rsc.review.approval import verdict
from rsc.review.approval.identity import create_identity
from rsc.store.dataset import Dataset

TRAIN = KeyRequest("train", "ada", data="posts")


def folder_of(house: House, version: int = 1) -> Path:
    return house.workspace.data / f"posts/v{version:04}"


def checked(house: House) -> Checked:
    return Checked(house.workspace, {"local": house.provider}, house.audit, house.clock.now())


def test_an_approval_copied_to_another_version_approves_nothing(house):
    house.add()
    house.approve()
    house.agent.release(TRAIN).close()
    house.add(texts=("other text",))
    shutil.copytree(folder_of(house) / "review/approvals", folder_of(house, 2) / "review/approvals")
    with pytest.raises(ReviewVoid, match="root_hash"):
        house.agent.release(TRAIN)
    assert reviews_valid(checked(house)).state == "broken"


def test_an_author_who_signs_around_the_command_is_not_counted(house):
    """`rsc data approve` refuses; so the author writes the signed file with a key of their own."""
    house.add(single_person=False)
    dataset = Dataset.open(house.workspace.data, name="posts")
    facts, policy = house.to_sign()
    with pytest.raises(GateRefused, match="cannot approve"):
        house.approve()
    author = create_identity(house.workspace.identities, name="ada2")
    author = type(author)("ada", author.public_key, author._private_key)  # claims the known name
    signed = verdict._sign("approve", facts, policy=policy, identity=author, note="", clock=house.clock)
    dataset.write_review("approvals/ada.json", signed.to_json())
    with pytest.raises(ReviewMissing, match="1 more approval needed"):
        house.agent.release(TRAIN)


def test_a_key_file_restored_from_a_backup_does_not_open_ended_data(house, tmp_path):
    """The tombstone decides, also when the restored file is newer."""
    house.add()
    house.approve()
    shutil.copytree(house.workspace.keys, tmp_path / "backup")
    envelope = Dataset.open(house.workspace.data, name="posts").envelope()
    expire(
        house.workspace,
        "posts",
        providers={"local": house.provider},
        audit=house.audit,
        user="ada",
    )
    (lost,) = (tmp_path / "backup").rglob("*.kek")
    shutil.copy(lost, house.workspace.keys / lost.relative_to(tmp_path / "backup"))
    with pytest.raises(KeyUnavailable, match="was destroyed"):
        open_envelope(house.provider, envelope, context=data_key_context("posts"))


def test_a_clock_set_back_brings_no_swept_data_back_and_no_approval_before_its_time(house):
    house.add(retention="9d")
    house.approve()
    house.clock.advance(-60)
    with pytest.raises(ReviewVoid, match="clock right"):
        house.agent.release(TRAIN)
    house.clock.advance(60 + 9 * 86400)
    with pytest.raises(KeyUnavailable, match="kept until"):
        house.agent.release(TRAIN)
    sweep(
        house.workspace,
        providers={"local": house.provider},
        audit=house.audit,
        clock=house.clock,
        user="sweeper",
    )
    house.clock.advance(-5 * 86400)
    with pytest.raises(KeyUnavailable, match="destroyed"):
        house.agent.release(TRAIN)


def test_a_workspace_behind_a_symbolic_link_is_looked_at_where_it_is(house, tmp_path):
    house.add()
    house.approve()
    elsewhere = tmp_path / "elsewhere"
    house.workspace.keys.rename(elsewhere)
    house.workspace.keys.symlink_to(elsewhere)
    house.agent.release(TRAIN).close()
    assert files_private(checked(house)).state == "kept"
    (key,) = elsewhere.rglob("*.kek")
    key.chmod(0o644)
    assert files_private(checked(house)).state == "broken"


def test_a_version_swapped_for_another_by_a_link_has_no_approval(house):
    house.add("posts")
    house.approve("posts")
    house.add("talks")
    shutil.move(folder_of(house), house.workspace.root / "aside")
    folder_of(house).symlink_to(house.workspace.data / "talks/v0001")
    with pytest.raises(IntegrityError, match="belongs to data set talks"):
        house.agent.release(TRAIN)


def test_environment_arguments_and_files_of_a_holder_show_no_key(house, tmp_path):
    """Of this process, which holds the key through a socket of the agent."""
    house.add()
    house.approve()
    with (
        AgentServer(house.agent, socket_path=tmp_path / "agent.sock", clock=house.clock, serves=SERVES),
        KeyClient(tmp_path / "agent.sock") as client,
    ):
        held = client.release(TRAIN)
        secret = bytes(held.key.view)
        forms = (secret, secret.hex().encode(), base64.b64encode(secret))
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # else only root may read its environment, even itself
        shown = [Path(f"/proc/self/{name}").read_bytes() for name in ("environ", "cmdline")]
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        shown += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert not any(form in content for form in forms for content in shown)
        client.end(held)


def test_a_key_is_locked_out_of_swap():
    """`VmLck` of this process grows by the key's page, and is given back."""

    def locked_kib() -> int:
        (line,) = [
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")
        ]
        return int(line.split()[1])

    before = locked_kib()
    with SecretKey.generate() as key:
        if not key.is_locked:
            pytest.skip("this user's RLIMIT_MEMLOCK is spent; is_locked says so, as promised")
        assert locked_kib() > before
    assert locked_kib() == before


def test_a_log_that_cannot_be_written_releases_to_nobody_of_a_batch(house, tmp_path, monkeypatch):
    house.add()
    house.approve()

    def fail(path, data):
        raise OSError(28, "No space left on device")

    with (
        AgentServer(house.agent, socket_path=tmp_path / "agent.sock", clock=house.clock, serves=SERVES),
        KeyClient(tmp_path / "agent.sock") as client,
    ):
        with monkeypatch.context() as full:
            full.setattr(house.audit._disk, "append", fail)
            with pytest.raises(GateRefused, match="could not write its log"):
                client.release(TRAIN)
        client.release(TRAIN).key.close()

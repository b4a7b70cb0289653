"""Every file of a workspace is changed in each way there is; `rsc verify` or `rsc data verify` names it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from house import SERVES, House
from test_agent import TRAIN

from rsc.audit.log import AuditLog
from rsc.cli.main import run
from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError, RscError
from rsc.keys.providers.local import LocalKeyProvider
from rsc.layers import resolve
from rsc.release.agent import server
from rsc.release.agent.client import KeyClient
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.rotate import rotate
from rsc.release.verify import verify as room
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.checks import (
    files_private,
    keys_within_retention,
    log_intact,
    no_plaintext,
    reviews_valid,
)
from rsc.release.verify.completeness import versions_whole
from rsc.release.verify.provenance import reviewers_enrolled, runs_recorded
from rsc.review.approval.identity import create_identity, load_identity
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.staging import StagedProgress, only_writer
from tests.people import account_of_person, enrol

CHECKS = tuple(check for check in room.CHECKS if check.__name__ != "nothing_phones_out")  # takes a second


def flip(path: Path) -> None:
    """One bit, near the end: in a key file that hits the secret and not the dates, which decide nothing."""
    content = bytearray(path.read_bytes())
    content[len(content) * 85 // 100] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.fixture
def lived_in(house) -> House:
    """Two data sets, one of them in two versions; a log partly in tiles; approvals by two people."""
    house.add()
    house.approve()
    house.agent.release(TRAIN).close()
    house.audit.checkpoint()
    house.add(texts=("another text", "and one more"))
    house.add("talks", texts=("a talk",))
    house.approve("talks", by="bob")
    return house


def faults(house: House, root: Path) -> list[str]:
    """What is said of a workspace: by `rsc verify`, and, where that is content, by `rsc data verify` and by
    whoever opens the signing keys."""
    workspace = Workspace(root)
    try:
        audit = AuditLog.open(workspace.audit, clock=house.clock)
        provider = LocalKeyProvider(workspace.keys, clock=house.clock)
        looked_at = Checked(workspace, {"local": provider}, audit, house.clock.now())
        rows = [room._checked(check, looked_at) for check in CHECKS]
        told = [f"{row.state}: {row.told}" for row in rows if row.state != "kept"]
        told += [breach.what for row in rows for breach in row.breaches]
        return told or _faults_inside(workspace)
    except RscError as error:
        return [error.message]


def _faults_inside(workspace: Workspace) -> list[str]:
    for name in ("ada", "bob"):
        load_identity(workspace.identities, name=name)
    versions = [(name, number) for name, numbers in list_datasets(workspace.bulk) for number in numbers]
    opened = [Dataset.open(workspace.bulk, name=name, version=number) for name, number in versions]
    return [problem.path for dataset in opened for problem in dataset.verify().problems]


def files(root: Path) -> list[Path]:
    """All but the lock, which holds nothing, in a fixed order."""
    found = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [path for path in found if path != Path("audit/lock")]


def tampered(house: House, change: Callable[..., None], *paths: Path, at: Path) -> list[str]:
    """What is said of a copy in which `change` was done to these files; they are put back afterwards."""
    if not at.exists():
        shutil.copytree(house.workspace.root, at)
    change(*(at / path for path in paths))
    told = faults(house, at)
    for path in paths:
        (at / path).unlink(missing_ok=True)
        shutil.copy2(house.workspace.root / path, at / path)
    return told


def test_nothing_is_said_of_a_workspace_as_it_should_be(lived_in, tmp_path):
    assert tampered(lived_in, lambda: None, at=tmp_path / "copy") == []


@pytest.mark.parametrize(
    "change", [flip, cut, lengthen, Path.unlink], ids=["flip", "cut", "lengthen", "remove"]
)
def test_a_change_of_any_file_is_said(lived_in, tmp_path, change):
    """But for the end of the log's tail, which a crash can leave so: a record tells how much was dropped."""
    harmless = {cut: ("audit/tail",), lengthen: ("audit/tail", "identities/ada.key", "identities/bob.key")}
    silent = [
        path
        for path in files(lived_in.workspace.root)
        if path.as_posix() not in harmless.get(change, ())
        and ((lived_in.workspace.root / path).stat().st_size or change not in (flip, cut))
        and not tampered(lived_in, change, path, at=tmp_path / "copy")
    ]
    assert silent == []


@pytest.mark.slow
def test_a_file_that_became_a_link_is_said(lived_in, tmp_path):
    def link(path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)

    silent = [
        path
        for path in files(lived_in.workspace.root)
        if not tampered(lived_in, link, path, at=tmp_path / "copy")
    ]
    assert silent == []


@pytest.mark.slow  # a hundred workspaces looked through
def test_two_files_that_changed_places_are_said(lived_in, tmp_path):
    """Every pair within a version, and each file with its namesake of the next version."""

    def swap(one: Path, other: Path) -> None:
        shutil.move(one, tmp_path / "aside")
        shutil.move(other, one)
        shutil.move(tmp_path / "aside", other)

    root = lived_in.workspace.root
    first = [path for path in files(root) if path.is_relative_to("data/posts/v0001")]
    namesakes = [(path, Path(str(path).replace("v0001", "v0002"))) for path in first]
    pairs = [*combinations(first, 2), *(pair for pair in namesakes if (root / pair[1]).exists())]
    silent = [
        pair
        for pair in pairs
        if (root / pair[0]).read_bytes() != (root / pair[1]).read_bytes()
        and not tampered(lived_in, swap, *pair, at=tmp_path / "copy")
    ]
    assert silent == []


def checked(house: House) -> Checked:
    return Checked(house.workspace, {"local": house.provider}, house.audit, house.clock.now())


def test_an_older_version_put_in_the_place_of_a_newer_is_said(lived_in):
    """All of it, review and approvals too, so that it is approved as it lies there."""
    folder = lived_in.workspace.data / "posts"
    shutil.rmtree(folder / "v0002")
    shutil.copytree(folder / "v0001", folder / "v0002")
    assert "posts version 2: root.json is not the one" in versions_whole(checked(lived_in)).told


def test_a_version_that_is_gone_is_said(lived_in):
    shutil.rmtree(lived_in.workspace.data / "talks")
    assert "talks version 1 is not here; record" in versions_whole(checked(lived_in)).told


def test_a_log_begun_anew_does_not_know_the_data(lived_in):
    shutil.rmtree(lived_in.workspace.audit)
    lived_in.audit = AuditLog.open(lived_in.workspace.audit, clock=lived_in.clock)
    assert log_intact(checked(lived_in)).state == "kept"
    row = versions_whole(checked(lived_in))
    assert (row.state, row.data) == ("broken", ("posts", "talks"))


def test_an_older_copy_of_the_log_does_not_know_the_approval(lived_in, tmp_path):
    shutil.copytree(lived_in.workspace.audit, tmp_path / "older")
    lived_in.approve(by="bob")
    shutil.rmtree(lived_in.workspace.audit)
    shutil.copytree(tmp_path / "older", lived_in.workspace.audit)
    lived_in.audit = AuditLog.open(lived_in.workspace.audit, clock=lived_in.clock)
    assert log_intact(checked(lived_in)).state == "kept"
    assert "posts version 2: the log knows no approve by bob" in reviews_valid(checked(lived_in)).told


def test_records_without_their_signing_key_are_not_begun_anew(lived_in):
    (lived_in.workspace.audit / "log.key").unlink()
    before = (lived_in.workspace.audit / "tail").read_bytes()
    with pytest.raises(IntegrityError, match=r"log\.key is missing"):
        AuditLog.open(lived_in.workspace.audit, clock=lived_in.clock)
    assert (lived_in.workspace.audit / "tail").read_bytes() == before


def test_a_rejection_that_was_removed_is_said_and_holds(lived_in):
    lived_in.reject(by="eve")
    lived_in.approve(by="ada")
    assert lived_in.state() == "rejected"
    (lived_in.workspace.data / "posts/v0002/review/approvals/eve.json").unlink()
    assert lived_in.state() == "rejected"
    assert "eve's reject (record" in reviews_valid(checked(lived_in)).told


def test_an_approval_whose_file_was_removed_is_said(lived_in):
    (lived_in.workspace.data / "talks/v0001/review/approvals/bob.json").unlink()
    row = reviews_valid(checked(lived_in))
    assert (row.state, row.data) == ("broken", ("talks",))
    assert "bob's approve (record" in row.told


def test_who_may_sign_does_not_hang_on_the_folder_of_public_keys(lived_in):
    for path in lived_in.workspace.identities.glob("*.pub"):
        path.unlink()
    assert reviews_valid(checked(lived_in)).state == "kept"
    assert reviewers_enrolled(checked(lived_in)).state == "kept"


def test_a_reviewer_whom_nobody_enrolled_countersigned_is_said(lived_in):
    stranger = create_identity(lived_in.workspace.identities, name="mallory")
    enrol(lived_in.audit, stranger, account=account_of_person("mallory"), by=stranger)
    row = reviewers_enrolled(checked(lived_in))
    assert row.state == "broken"
    assert "nobody enrolled has countersigned" in row.told


def test_an_approval_from_another_account_than_its_reviewers_is_said(lived_in):
    root = Dataset.open(lived_in.workspace.data, name="posts").root_hash
    lived_in.audit.append("approve", data="posts", root_hash=root, approver="bob", uid=79999)
    row = reviewers_enrolled(checked(lived_in))
    assert (row.state, row.data) == ("broken", ("posts",))
    assert "approved from account 79999" in row.told


def _change_run_json(folder):
    record = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").write_text(json.dumps({**record, "lineage": {}}))


RUN_CHANGES = {
    "lineage emptied": _change_run_json,
    "run.json gone bad": lambda folder: (folder / "run.json").write_text("[]"),
    "recipe changed": lambda folder: (folder / "resolved.toml").write_text("train.steps = 9\n"),
    "recipe removed": lambda folder: (folder / "resolved.toml").unlink(),
}


@pytest.mark.parametrize("change", RUN_CHANGES)
def test_papers_of_a_run_that_do_not_say_what_the_log_says_are_named(lived_in, change):
    folder = lived_in.workspace.runs / "r7"
    folder.mkdir(parents=True)
    (folder / "resolved.toml").write_text("train.steps = 5\n")
    root = Dataset.open(lived_in.workspace.data, name="posts", version=1).root_hash
    lineage = {
        "data": {"name": "posts", "version": 1, "root_hash": root},
        "recipe_sha256": resolve(str(folder / "resolved.toml")).digest,
    }
    (folder / "run.json").write_text(json.dumps({"lineage": lineage}))
    assert "the log does not say what it was trained on" in runs_recorded(checked(lived_in)).told
    lived_in.add_run("r7", lineage)
    assert runs_recorded(checked(lived_in)).state == "kept"
    RUN_CHANGES[change](folder)
    row = runs_recorded(checked(lived_in))
    assert (row.state, row.data) == ("broken", ("posts",))


def test_a_signing_key_that_is_not_the_known_one_signs_nothing(lived_in):
    folder = lived_in.workspace.identities
    shutil.copy(folder / "bob.key", folder / "ada.key")
    with pytest.raises(ConfigError, match=r"does not belong to the public key in ada\.pub"):
        load_identity(folder, name="ada")


@pytest.mark.parametrize("end", ["expire", "rotate"])
def test_a_key_folder_restored_from_a_backup_tombstones_and_all_is_said(lived_in, tmp_path, end):
    house = lived_in
    backup = tmp_path / "backup"
    shutil.copytree(house.workspace.root, backup)
    common = {"providers": {"local": house.provider}, "audit": house.audit, "user": "ada"}
    if end == "expire":
        expire(house.workspace, "posts", **common)
    else:
        rotate(house.workspace, "posts", **common)
    assert keys_within_retention(checked(house)).state == "kept"
    for part in ("keys", "data"):
        shutil.rmtree(house.workspace.root / part)
        shutil.copytree(backup / part, house.workspace.root / part)
    row = keys_within_retention(checked(house))
    assert "key data/posts/2026-11 is back; record" in row.told


def test_a_key_file_copied_back_beside_its_mark_is_said(lived_in, tmp_path):
    """As `cp -a backup/keys/. keys/` does: the mark stays, so RSC refuses the key, and it lies there."""
    house = lived_in
    shutil.copytree(house.workspace.keys, tmp_path / "backup")
    expire(house.workspace, "posts", providers={"local": house.provider}, audit=house.audit, user="ada")
    shutil.copytree(tmp_path / "backup", house.workspace.keys, dirs_exist_ok=True)
    row = keys_within_retention(checked(house))
    assert (row.state, "key data/posts/2026-11 is back beside the mark" in row.told) == ("broken", True)
    (house.workspace.keys / "data/posts/2026-11.kek").unlink()
    assert keys_within_retention(checked(house)).state == "kept"


def test_a_folder_that_is_a_link_is_not_passed_over(lived_in, tmp_path):
    shutil.move(lived_in.workspace.data / "talks", tmp_path / "talks")
    (tmp_path / "talks/v0001/diary.txt").write_text("dear diary")
    (lived_in.workspace.data / "talks").symlink_to(tmp_path / "talks")
    assert "data/talks is a link" in no_plaintext(checked(lived_in)).told


def test_what_a_killed_writer_left_is_said_and_swept_once_nobody_holds_it(lived_in, monkeypatch):
    """Killed between key.json and the first checkpoint: nothing says whose it is."""
    left = lived_in.workspace.data / "posts/.staging-0123456789abcdef"
    left.mkdir()
    shutil.copy(lived_in.workspace.data / "posts/v0001/key.json", left)
    monkeypatch.setenv("RSC_HOME", str(lived_in.workspace.root))
    with only_writer(lived_in.workspace.data / "posts"):
        assert versions_whole(checked(lived_in)).state == "kept"
        assert run(["keys", "sweep"]) == 0
        assert left.is_dir()
    told = versions_whole(checked(lived_in)).told
    assert "posts/.staging-0123456789abcdef was left by a killed command" in told
    assert run(["keys", "sweep"]) == 0
    assert not left.exists()
    assert versions_whole(checked(lived_in)).state == "kept"


def test_a_version_that_can_be_resumed_is_left_alone(lived_in):
    left = lived_in.workspace.data / "posts/.staging-0123456789abcdef"
    left.mkdir()
    (left / "progress.json").write_bytes(StagedProgress({}, {}, {}).to_bytes())
    assert versions_whole(checked(lived_in)).state == "kept"


def test_another_user_who_reaches_the_socket_is_hung_up_on(lived_in, tmp_path, monkeypatch):
    """Somebody opened the socket's mode; the kernel says who it is."""
    monkeypatch.setattr(server, "peer_of", lambda connection: (os.getpid(), os.getuid() + 1))
    path = tmp_path / "agent.sock"
    with (
        server.AgentServer(lived_in.agent, socket_path=path, clock=lived_in.clock, serves=SERVES),
        KeyClient(path) as client,
        pytest.raises((RscError, OSError)),
    ):
        client.release(TRAIN)


@pytest.mark.skipif(os.getuid() != 0, reason="giving a file to another user needs root")
def test_a_file_that_another_user_owns_is_said(lived_in):
    os.chown(lived_in.workspace.identities / "ada.pub", 65534, 65534)
    assert "ada.pub belongs to another user (number 65534)" in files_private(checked(lived_in)).told


@pytest.mark.parametrize("path", ["keys", "data/posts/v0001/review", "data/posts/v0001/root.json", "audit"])
def test_a_folder_or_file_that_others_can_write_is_said(lived_in, path):
    (lived_in.workspace.root / path).chmod(0o777)
    assert f"{path} has mode 0777" in files_private(checked(lived_in)).told

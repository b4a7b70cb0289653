"""Who signs: enrolment, accounts, and files that one account hands to another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rsc.accounts import Account, this_account
from rsc.cli.main import run
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import (
    acting_name,
    admit,
    author_name,
    enrol,
    open_identity,
    own_identity,
    read_handed_over,
    signing_reviewer,
)
from rsc.review.approval.enrolment import enrolment_of
from rsc.review.approval.identity import create_identity, is_protected
from rsc.store.dataset import Dataset

TWO = 'purpose = ["train"]\nretention = "90d"\napproval_valid = "30d"\nrequired_approvers = 1\n'
BEN = Account(70001, "ben")


@pytest.fixture
def house(workspace: Workspace) -> Custody:
    return Custody(workspace)


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that another account can walk into; those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def rsc(*arguments: str, expect: int = 0) -> None:
    assert run(list(arguments)) == expect


def test_the_owner_is_enrolled_at_first_use_and_asked_nothing(house: Custody) -> None:
    assert author_name(house, None) == this_account().name
    (reviewer,) = house.recorded.reviewers.values()
    assert (reviewer.uid, reviewer.protection) == (os.getuid(), "none")
    assert signing_reviewer(house, None) == reviewer
    assert len([entry for entry in house.audit.entries() if entry["kind"] == "reviewer_enrolled"]) == 1


@pytest.mark.parametrize("choose", [acting_name, author_name, signing_reviewer])
@pytest.mark.parametrize("name", ["bob", "dave", "root ", "../keys", ""])
def test_a_name_that_is_not_enrolled_for_this_account_is_refused(
    house: Custody, choose: Callable[..., object], name: str
) -> None:
    enrol(house, passphrase=None)
    with pytest.raises(ConfigError, match="is not a reviewer enrolled for account"):
        choose(house, name)
    assert not (house.workspace.identities / f"{name}.key").exists()


def test_two_names_of_one_command_line_are_no_two_people(
    workspace: Workspace, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "posts.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "two.toml").write_text(TWO)
    secret = ("--passphrase-file", str(passphrase))
    rsc(
        "data", "import", str(tmp_path / "posts.jsonl"), "--policy", str(tmp_path / "two.toml"), "holdout=0.0"
    )
    for name in ("bob", "carol"):
        rsc("data", "approve", "posts", "--as", name, *secret, expect=2)
        monkeypatch.setenv("LOGNAME", name)
        rsc("data", "approve", "posts", *secret, expect=3)
    rsc("review", "enroll", "--name", "bob", *secret)
    rsc("data", "approve", "posts", "--as", "bob", *secret, expect=3)
    assert not list(workspace.data.rglob("approvals/*.json"))


def test_another_account_cannot_enrol_itself(house: Custody, tmp_path: Path) -> None:
    enrol(house, passphrase=None)
    for account in (BEN, Account(70001, this_account().name)):
        with pytest.raises(ConfigError, match="cannot enrol itself"):
            enrol(replace(house, account=account), passphrase=b"secret", name="ben")
    fresh = Custody(Workspace(tmp_path / "fresh"), account=BEN)
    fresh.workspace.root.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="is its owner"):
        enrol(fresh, passphrase=b"secret")


def test_a_request_counts_for_the_account_that_owns_its_file(house: Custody, tmp_path: Path) -> None:
    first = enrol(house, passphrase=None)
    root = open_identity(house, first, passphrase=None)
    identity = create_identity(tmp_path / "ben", name="ben", passphrase=b"secret")
    asked = enrolment_of(identity, account=BEN, protection="passphrase")
    with pytest.raises(GateRefused, match="says account 70001 and its file belongs to"):
        admit(house, asked, owner=this_account(), endorser=root)
    forged = replace(asked, uid=70002)
    with pytest.raises(GateRefused, match="not signed by its own key"):
        admit(house, forged, owner=Account(70002, "cy"), endorser=root)
    stranger = create_identity(tmp_path / "eve", name="eve")
    with pytest.raises(GateRefused, match="nobody who is enrolled countersigned it"):
        admit(house, asked, owner=BEN, endorser=stranger)
    assert admit(house, asked, owner=BEN, endorser=root).uid == 70001
    assert house.recorded.persons() == 2
    taken = create_identity(tmp_path / "other", name="ben")
    with pytest.raises(ConfigError, match="name of a reviewer with another account"):
        admit(
            house,
            enrolment_of(taken, account=Account(70003, "eve"), protection="none"),
            owner=Account(70003, "eve"),
            endorser=root,
        )


def test_what_somebody_else_could_have_written_is_not_handed_over(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"{}")
    plain.chmod(0o644)
    assert read_handed_over(plain) == (b"{}", this_account())
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    for mode, name in ((0o664, "group"), (0o646, "others")):
        (tmp_path / name).write_bytes(b"{}")
        (tmp_path / name).chmod(mode)
    (tmp_path / "twice").write_bytes(b"{}")
    os.link(tmp_path / "twice", tmp_path / "second")
    for name in ("link", "pipe", "folder", "large", "group", "others", "twice", "second", "missing"):
        with pytest.raises(ConfigError):
            read_handed_over(tmp_path / name)


def test_a_key_gets_a_passphrase_and_stays_the_same_key(house: Custody) -> None:
    before = enrol(house, passphrase=None)
    after = enrol(house, passphrase=b"secret")
    assert (after.public_key, after.protection) == (before.public_key, "passphrase")
    assert is_protected(house.workspace.identities, name=before.name)
    with pytest.raises(ConfigError, match="does not open"):
        open_identity(house, after, passphrase=b"wrong")
    assert open_identity(house, after, passphrase=b"secret").public_key == after.public_key
    assert own_identity(house, name=before.name, passphrase=b"secret").public_key == after.public_key


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two accounts")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux has no setpriv here")
def test_two_people_on_two_accounts(workspace: Workspace, tmp_path: Path, open_to_all: Path) -> None:
    """The how-to of docs/review.md, with a process that really is another account."""
    shared = open_to_all / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    theirs, secret = open_to_all / "ben", open_to_all / "ben-passphrase"
    theirs.mkdir(mode=0o700)
    secret.write_text("a passphrase of ben\n")
    secret.chmod(0o600)
    for path in (theirs, secret):
        os.chown(path, BEN.uid, BEN.uid)

    def ben(*arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={BEN.uid}", f"--regid={BEN.uid}", "--clear-groups"),
                *(sys.executable, "-m", "rsc", *arguments, "--passphrase-file", str(secret)),
            ],
            env={**os.environ, "RSC_HOME": str(theirs), "LOGNAME": "root", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == expect, done.stderr
        return done.stderr

    (tmp_path / "posts.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "two.toml").write_text(TWO)
    rsc(
        "data", "import", str(tmp_path / "posts.jsonl"), "--policy", str(tmp_path / "two.toml"), "holdout=0.0"
    )
    ben("review", "enroll", "--name", "ben", "--write", str(shared / "ben.enroll"))
    rsc("review", "enroll", "--from", str(shared / "ben.enroll"))
    packet, signed = shared / "packet", shared / "signed"
    rsc("data", "review", "posts", "--write", str(packet))
    packet.chmod(0o644)
    ben("data", "approve", "posts", "--packet", str(packet), "--write", str(signed), "--as", "ben")
    copied = shared / "copied"
    shutil.copyfile(signed, copied)
    rsc("data", "approve", "posts", "--from", str(copied), expect=3)
    house = Custody(workspace)
    rsc("data", "approve", "posts", "--from", str(signed))
    approved = [entry for entry in house.audit.entries() if entry["kind"] == "approve"]
    assert [(entry["approver"], entry["uid"], entry["by_uid"]) for entry in approved] == [("ben", BEN.uid, 0)]
    facts = house.facts(Dataset.open(workspace.data, name="posts"))
    assert (facts.review.state, facts.review.approvers) == ("approved", ("ben",))

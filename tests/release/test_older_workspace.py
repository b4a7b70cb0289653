"""A workspace made by commit 7daea6a (tests/fixtures): its log says nothing of runs, reviewers and accounts.

`posts` was approved by its importer, a run of three steps was trained on it; `letters` was approved by two
names that one account made up. Times in its policies are a century, so that it does not age.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from rsc.accounts import this_account
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused, ReviewMissing
from rsc.release.agent.custody import Custody
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.attest import attest
from rsc.release.lifecycle.trace import trace
from rsc.release.record.reviewers import acting_name
from rsc.release.verify.verify import verify

FIXTURE = Path(__file__).parent.parent / "fixtures" / "workspace-7daea6a.tar.xz"


@pytest.fixture
def older(tmp_path: Path) -> Custody:
    with tarfile.open(FIXTURE) as archive:
        how = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 brought it
        archive.extractall(tmp_path / "home", **how)
    (tmp_path / "home").chmod(0o700)
    (tmp_path / "home/keys/providers.toml").chmod(0o600)
    return Custody(Workspace.from_environment({"RSC_HOME": str(tmp_path / "home")}))


def run_of(older: Custody) -> str:
    return next(older.workspace.runs.iterdir()).name


def test_before_it_is_brought_over_nothing_is_taken_on_faith(older: Custody) -> None:
    with pytest.raises(ReviewMissing, match="nobody is enrolled under the key of keeper"):
        older.agent.release(KeyRequest("train", data="posts"))
    with pytest.raises(GateRefused, match="rsc audit attest"):
        older.agent.release(KeyRequest("checkpoint", run=run_of(older)))


def test_one_logged_command_brings_it_over(older: Custody) -> None:
    done = attest(older)
    assert (set(done.reviewers), done.runs, done.refused) == (
        {"keeper", "ana", "ben", "cy"},
        (run_of(older),),
        (),
    )
    older.agent.release(KeyRequest("train", data="posts")).close()
    older.agent.release(KeyRequest("checkpoint", run=run_of(older))).close()
    older.agent.release(KeyRequest("export", run=run_of(older))).close()
    with pytest.raises(ReviewMissing, match="2 more approvals needed"):
        older.agent.release(KeyRequest("train", data="letters"))  # two names, one account: the author's
    kinds = [entry["kind"] for entry in older.audit.entries() if entry.get("user") == this_account().name]
    assert kinds.count("reviewer_enrolled") == 4
    assert kinds.count("run_attested") == 1
    assert attest(older) == type(done)((), (), (), ())


def test_its_promises_are_checked_as_those_of_a_new_one(older: Custody) -> None:
    attest(older)
    rows = verify(older.workspace, providers=older.providers, audit=older.audit, clock=SystemClock())
    broken = {row.name: row.told for row in rows if row.state != "kept"}
    assert broken.keys() <= {"no release without approval"}, broken  # the run began under two names of one


def test_a_run_whose_papers_were_emptied_is_not_attested(older: Custody) -> None:
    path = older.workspace.runs / run_of(older) / "run.json"
    record = json.loads(path.read_bytes())
    for lineage in ({}, {"data": {}}, [], {"data": {**record["lineage"]["data"], "root_hash": "0" * 64}}):
        path.write_text(json.dumps({**record, "lineage": lineage}))
        done = attest(older)
        assert (done.runs, len(done.refused)) == ((), 1)
        with pytest.raises(GateRefused, match="does not say what run"):
            older.agent.release(KeyRequest("checkpoint", run=run_of(older)))


def test_a_person_is_traced_to_its_run_once_it_is_recorded(older: Custody) -> None:
    def look() -> object:
        about = {"agent": older.agent, "audit": older.audit, "user": "keeper"}
        return trace(older.workspace, "user7@example.org", **about)

    before = look()
    assert (before.hits != (), before.runs, before.runs_unrecorded) == (True, (), (run_of(older),))
    attest(older)
    after = look()
    assert ([run.run for run in after.runs], after.runs_unrecorded) == ([run_of(older)], ())


def test_a_made_up_name_chooses_nothing(older: Custody) -> None:
    with pytest.raises(ConfigError, match="'ben' is not a reviewer enrolled for account"):
        acting_name(older, "ben")
    attest(older)
    assert acting_name(older, "ben") == "ben"
    with pytest.raises(ConfigError, match="'dave' is not a reviewer enrolled"):
        acting_name(older, "dave")

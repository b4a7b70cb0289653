"""The Python API: the same records, gate, keys and log as the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rsc
from rsc.api import endings, imports, models, record
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused, IsolationRefused, KeyUnavailable, ReviewMissing
from rsc.ingest.config import ImportOptions
from rsc.recipes.sections import EvalConfig
from rsc.release.agent.custody import Custody
from rsc.review.policy import Policy, policy_to_toml
from rsc.runs.folder import RunFolder
from rsc.store.dataset import Dataset
from tests.conftest import FakeClock

NUM_POSTS = 120


@pytest.fixture
def posts(tmp_path: Path, workspace: Workspace) -> Path:
    source = tmp_path / "My Posts.jsonl"
    lines = [{"text": f"post {n}: mail user{n}@example.org", "label": n % 3} for n in range(NUM_POSTS)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return source


@pytest.fixture
def approved(posts: Path) -> str:
    done = rsc.api.import_data(posts, name="posts", options=ImportOptions(holdout=0.0), processes=1)
    rsc.api.approve("posts", note="made up")
    return done.data


def kinds(workspace: Workspace) -> list[str]:
    return [entry["kind"] for entry in Custody(workspace).audit.entries()]


@pytest.mark.parametrize("line", ["import rsc", "import rsc; rsc.api.data_sets; rsc.api.train; rsc.api.runs"])
def test_importing_brings_no_torch(line: str) -> None:
    code = f"import sys; {line}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_rsc_imports_nothing_of_it() -> None:
    code = "import sys, rsc; print([name for name in sys.modules if name.startswith('rsc.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", rsc.api.__all__)
def test_every_name_is_there_and_says_what_it_does(name: str) -> None:
    found = getattr(rsc.api, name)
    assert callable(found)
    assert found.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        rsc.api.trian  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError):
        rsc.apis  # type: ignore[attr-defined]  # noqa: B018


def test_records_are_the_json_of_the_commands(
    posts: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    from rsc.cli.main import run

    done = rsc.api.import_data(posts, processes=1)
    assert (done.data, done.records, done.by_type) == ("my-posts", NUM_POSTS, {"email": NUM_POSTS})
    capsys.readouterr()
    for verb, found in (
        ("show", rsc.api.data_set("my-posts")),
        ("review", rsc.api.review("my-posts")),
        ("verify", rsc.api.verify_data("my-posts")),
    ):
        assert run(["data", verb, "my-posts", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads(json.dumps({"schema": 1, **found.to_json()}))
    (listed,) = rsc.api.data_sets()
    assert (listed.data, listed.state, listed.key) == ("my-posts", "in_review", "active")


def test_what_people_named_is_escaped_in_a_notebook(posts: Path) -> None:
    rsc.api.import_data(posts, name="posts", processes=1)
    for shown in (rsc.api.data_set("posts"), rsc.api.review("posts"), rsc.api.data_sets()[0]):
        assert "posts version 1" in shown._repr_html_()
    assert "<script>" not in record.html_table("<script>", [("<script>\x1b[2J", 1)], header=("<script>",))
    assert "\x1b" not in record.html_table("", [("\x1b[2J",)])


@pytest.mark.parametrize(("said", "least"), [("", 10), ("min_group = 3\n", 3)])
def test_an_evaluation_shows_no_smaller_groups_than_the_policy_says(
    posts: Path, workspace: Workspace, said: str, least: int
) -> None:
    policy = f"required_approvers = 1\nsingle_person = true\n{said}".encode()
    rsc.api.import_data(posts, name="posts", processes=1, policy=policy)
    dataset = Dataset.open(workspace.bulk, name="posts")
    models._require_large_groups(EvalConfig(min_group=least), dataset=dataset)
    with pytest.raises(GateRefused, match=f"groups of {least} samples"):
        models._require_large_groups(EvalConfig(min_group=least - 1), dataset=dataset)


def test_batches_come_through_the_gate(approved: str, workspace: Workspace) -> None:
    before = kinds(workspace).count("key_released")
    data = rsc.api.TrainingData(approved, batch_size=32)
    seen = [int(label) for batch in data for label in batch["label"]]
    assert sorted(seen) == sorted(n % 3 for n in range(NUM_POSTS))
    assert kinds(workspace).count("key_released") == before + 1


def test_unapproved_data_gives_no_batch_and_the_log_says_so(posts: Path, workspace: Workspace) -> None:
    rsc.api.import_data(posts, name="posts", processes=1)
    with pytest.raises(ReviewMissing):
        rsc.api.TrainingData("posts", batch_size=8)
    assert "train_refused" in kinds(workspace)
    assert "key_released" not in kinds(workspace)


def test_a_policy_that_requires_isolation_refuses_a_script(posts: Path) -> None:
    policy = Policy(single_person=True, required_approvers=1, isolation="required")
    rsc.api.import_data(posts, name="posts", policy=policy_to_toml(policy), processes=1)
    rsc.api.approve("posts")
    data = rsc.api.TrainingData("posts", batch_size=8)
    with pytest.raises(IsolationRefused):
        next(iter(data))


def test_an_end_of_the_data_reaches_a_script_that_still_reads(
    approved: str, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr("rsc.api.torch_data.LEASE_S", 0.0)
    batches = iter(rsc.api.TrainingData(approved, batch_size=8))
    next(batches)
    ended = rsc.api.expire(approved)
    assert ended.proof["opened_after"] == 0
    with pytest.raises((KeyUnavailable, GateRefused)):
        next(batches)
    with pytest.raises(KeyUnavailable):
        rsc.api.TrainingData(approved, batch_size=8)


@pytest.mark.parametrize("stop", [0, 1, 3, 7])
def test_batches_go_on_where_the_state_was_taken(approved: str, stop: int) -> None:
    def texts(batch: Any) -> list[bytes]:
        found: list[bytes] = batch["text"].to_bytes()
        return found

    whole = rsc.api.TrainingData(approved, batch_size=16, seed=3)
    epochs = [[texts(batch) for batch in whole] for _ in range(2)]
    assert epochs[0] != epochs[1]  # shuffled anew
    first = rsc.api.TrainingData(approved, batch_size=16, seed=3)
    batches = iter(first)
    ours = [texts(next(batches)) for _ in range(stop)]
    state = json.loads(json.dumps(first.state_dict()))
    second = rsc.api.TrainingData(approved, batch_size=16, seed=3)
    second.load_state_dict(state)
    assert ours + [texts(batch) for batch in second] == epochs[0]
    assert [texts(batch) for batch in second] == epochs[1]
    second.set_epoch(0)
    assert texts(next(iter(second))) == epochs[0][0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_every_sample_once(approved: str, workers: int) -> None:
    from torch.utils.data import DataLoader

    data = rsc.api.TrainingData(approved, batch_size=7)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    texts = [text for batch in loader for text in batch["text"].to_bytes()]
    assert len(texts) == len(set(texts)) == NUM_POSTS


def test_the_umask_of_the_caller_stays_and_files_are_private(posts: Path, workspace: Workspace) -> None:
    before = os.umask(0o002)
    try:
        rsc.api.import_data(posts, name="posts", processes=1)
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(before)
    open_files = [path for path in workspace.root.rglob("*") if path.lstat().st_mode & 0o022]
    assert [path for path in open_files if not path.is_symlink()] == []


def held(workspace: Workspace, clock: FakeClock) -> RunFolder:
    return RunFolder.create(workspace.runs, recipe="language", steps=3, lineage={}, clock=clock)


def test_what_a_run_trains_on_does_not_end_beneath_it(
    approved: str, workspace: Workspace, clock: FakeClock
) -> None:
    """A run that the log does not know may read anything."""
    run = held(workspace, clock)
    with run.locked():
        for end in (lambda: rsc.api.expire(approved), lambda: rsc.api.erase("user1@example.org")):
            with pytest.raises(ConfigError, match=run.id):
                end()
        with pytest.raises(ConfigError, match="is being trained"):
            rsc.api.remove_run(run.id)
        assert endings.runs_that_train(Custody(workspace), name=approved)
        assert rsc.api.expire(approved, though_runs_train=True).versions == [1]


def test_a_run_is_removed_and_the_log_says_so(workspace: Workspace, clock: FakeClock) -> None:
    run = held(workspace, clock)
    (run.path / "logs" / "rank0.log").write_text("x" * 1000)
    assert rsc.api.remove_run(run.id).freed_bytes >= 1000
    assert not run.path.exists()
    assert kinds(workspace)[-1] == "run_removed"


def test_metrics_are_arrays_with_gaps(workspace: Workspace, clock: FakeClock) -> None:
    run = held(workspace, clock)
    lines = [
        {"time": f"2026-11-21T09:00:0{n}.000Z", "step": step, "loss": loss, "step_s": 0.5, **more}
        for n, (step, loss, more) in enumerate(
            [(1, 2.0, {}), (2, 9.0, {}), (2, 1.5, {"val_loss": 3.0}), (3, None, {})]
        )
    ]
    (run.path / "metrics" / "rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = rsc.api.run(run.id).metrics()
    assert found["step"].tolist() == [1, 2, 3]
    assert found["loss"].tolist()[:2] == [2.0, 1.5]  # of a step that was done twice, the later one
    assert str(found["loss"][2]) == str(found["val_loss"][0]) == "nan"


def test_names_of_sources_become_names_of_data_sets() -> None:
    assert imports.name_of("/x/My Posts.jsonl.gz") == "my-posts"

"""Data in an object store, by the command line: brought in, approved, trained on from the sandbox, ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rsc.config import Workspace
from tests.store.flaky_server import FlakyServer
from tests.train.conftest import Rsc, topics

CONFIG = '[data]\nlocation = "s3://bucket/sets"\ncache = "1 GiB"\n'
TIMEOUT_S = 900  # on a busy machine


@pytest.fixture
def on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rsc:
    """A workspace whose data sets lie in a bucket."""
    login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    for name, value in (login | {"AWS_ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text(CONFIG)
    return Rsc(Workspace(tmp_path / "home"))


def keys_in(s3: Any) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


@pytest.mark.slow
def test_import_approve_train_evaluate_and_expire_on_s3(on_s3: Rsc, s3: Any, tmp_path: Path) -> None:
    source = tmp_path / "topics.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in topics(60)))
    on_s3.run("data", "import", str(source), "--json")
    assert "sets/topics/v0001/train/000000000.rsc" in keys_in(s3)
    on_s3.run("data", "approve", "topics", "--note", "looked at it")
    assert on_s3.run("data", "ls", "--json")["data"][0]["state"] == "approved"
    assert on_s3.run("data", "verify", "topics", "--json")["is_good"]
    done = on_s3.train("train.steps=4", timeout_s=TIMEOUT_S)
    driven = on_s3.events_of(done["run"], "driven")[-1]
    assert driven["isolated"] or driven["reason"], "workers had no network where this machine can isolate"
    cache = on_s3.workspace.cache
    assert list(cache.glob("??/*")), "ciphertext came to this node"
    on_s3.run("eval", done["run"], "--json")
    on_s3.run("verify", "--json")
    on_s3.run("data", "expire", "topics", "--json")
    assert not [key for key in keys_in(s3) if key.endswith(".rsc")]
    assert not list(cache.glob("??/*")), "nothing of it stays on this node"
    assert "KeyUnavailable" in on_s3.train(expect=3)["stderr"]


@pytest.mark.slow
def test_two_ranks_train_as_on_a_folder_although_the_store_misbehaves_and_the_mover_is_killed(
    rsc_with_text: Rsc, whole: dict[int, float], on_s3: Rsc, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = rsc_with_text.workspace
    for part in ("keys", "identities"):
        shutil.copytree(here.root / part, on_s3.workspace.root / part)
    with FlakyServer() as flaky:
        monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
        for path in (path for path in here.data.rglob("*") if path.is_file()):
            flaky.objects[f"sets/{path.relative_to(here.data)}"] = path.read_bytes()
        on_s3.run("audit", "attest")
        process = on_s3.start(*on_s3.train_command())
        mover = wait_for_event(on_s3, "mover_started")
        wait_for_event(on_s3, "worker_started")
        flaky.faults.extend(["drop", "truncate", "503"])
        os.kill(mover["pid"], signal.SIGKILL)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err
        run = json.loads(out)["run"]
        assert on_s3.losses(run) == whole
        assert on_s3.events_of(run, "mover_lost")
        assert not on_s3.events_of(run, "failure"), "workers only waited"
        shard_bytes = sum(path.stat().st_size for path in on_s3.workspace.cache.glob("??/*"))
        before = flaky.sent_bytes
        assert on_s3.losses(on_s3.train(timeout_s=TIMEOUT_S)["run"]) == whole
        assert flaky.sent_bytes - before < shard_bytes, "shards lie on this node: only small files were read"


def wait_for_event(rsc: Rsc, kind: str) -> dict[str, Any]:
    while True:
        for run in rsc.workspace.runs.glob("*/events.jsonl"):
            found = rsc.events_of(run.parent.name, kind)
            if found:
                return found[0]
        time.sleep(0.05)


@pytest.mark.slow
def test_wrong_bucket_no_credentials_and_a_tiny_cache_are_said_with_a_hint(
    on_s3: Rsc, s3: Any, monkeypatch: pytest.MonkeyPatch, rsc_with_text: Rsc
) -> None:
    config = on_s3.workspace.root / "config.toml"
    config.write_text(CONFIG.replace("bucket", "bukcet"))
    told = on_s3.run("data", "ls", expect=4)["stderr"]
    assert "there is no such bucket" in told
    assert "hint: look at the name behind `location` in config.toml, or of the source" in told
    config.write_text(CONFIG.replace("location", "loaction"))
    told = on_s3.run("data", "ls", expect=2)["stderr"]
    assert 'did you mean "location"?' in told
    config.write_text(CONFIG.replace("1 GiB", "1 MiB"))
    shutil.copytree(rsc_with_text.workspace.keys, on_s3.workspace.keys)
    shutil.copytree(rsc_with_text.workspace.identities, on_s3.workspace.identities)
    for path in (path for path in rsc_with_text.workspace.data.rglob("*") if path.is_file()):
        key = f"sets/{path.relative_to(rsc_with_text.workspace.data)}"
        s3.put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
    on_s3.run("audit", "attest")
    told = on_s3.train(expect=2)["stderr"]
    assert "too small" in told
    assert "`cache` in config.toml" in told
    config.write_text(CONFIG)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    told = on_s3.run("data", "ls", expect=2)["stderr"]
    assert "Missing AccessKeyId" in told
    assert "hint: name account, region and credentials in the environment" in told


def test_data_left_in_the_folder_is_told_before_it_is_forgotten(fresh_rsc: Rsc) -> None:
    fresh_rsc.add_text(topics(2))
    (fresh_rsc.workspace.root / "config.toml").write_text(CONFIG)
    told = fresh_rsc.run("data", "ls", expect=2)["stderr"]
    assert "topics lie in" in told
    assert "hint: copy them there" in told

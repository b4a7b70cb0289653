"""A run whose checkpoints go to S3 and which goes on from there in another workspace, by the command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsc.config import Workspace


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of moto's S3 with an empty bucket, and the environment that leads `rsc` there."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    place = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true"}
    for name, value in (login | place).items():
        monkeypatch.setenv(name, value)
    try:
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield client
    finally:
        server.stop()


def steps_on(s3: Any) -> set[str]:
    listed = s3.list_objects_v2(Bucket="bucket").get("Contents", [])
    return {part for item in listed for part in item["Key"].split("/") if part.startswith("step-")}


@pytest.mark.slow
def test_a_run_goes_on_in_another_workspace_from_its_copies_on_s3(
    rsc_with_text: Any, whole: dict[int, float], s3: Any, tmp_path: Path
) -> None:
    there = type(rsc_with_text)(Workspace(tmp_path / "there"))
    for part in ("data", "keys", "identities"):  # what another machine of the same team has
        shutil.copytree(getattr(rsc_with_text.workspace, part), getattr(there.workspace, part))
    stopped = rsc_with_text.train(
        "checkpoint.folder=s3://bucket/teams", "train.fail_at=rank=0,step=6,kind=sigterm", expect=75
    )
    assert max(steps_on(s3)) == "step-00000006", (
        "the newest is always copied, one before it if there was time"
    )
    resumed = there.run("runs", "resume", f"s3://bucket/teams/{stopped['run']}", "--json")
    assert (resumed["state"], resumed["resumed_at"]) == ("finished", 6)
    assert "checkpoint of step 6 fetched from s3://bucket/teams" in resumed["stderr"]
    theirs = there.losses(stopped["run"])
    assert theirs == {step: whole[step] for step in range(7, 13)}
    assert max(steps_on(s3)) == "step-00000012"
    assert len(steps_on(s3)) <= 2, "retention"
    copied = there.events_of(stopped["run"], "checkpoint_copied")
    assert copied[-1]["step"] == 12
    driven = there.events_of(stopped["run"], "driven")[-1]
    assert driven["isolated"] or driven["reason"], "workers had no network where this machine can isolate"


def test_a_store_that_does_not_answer_is_said_before_any_worker_starts(
    rsc_with_text: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    told = rsc_with_text.train(f"checkpoint.folder={tmp_path}/file", expect=4)["stderr"]
    assert "ResourceError" in told
    told = rsc_with_text.train("checkpoint.folder=relative/path", expect=2)["stderr"]
    assert "neither an absolute path nor an address" in told

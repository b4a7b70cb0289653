"""A run whose checkpoints go to S3 and which goes on from there in another workspace, by the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rsc.config import Workspace


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
    copy = f"s3://bucket/teams/{stopped['run']}"
    told = there.run("runs", "resume", copy, expect=3)["stderr"]
    assert "the log of this workspace does not say what run" in told
    there.run("audit", "attest")
    resumed = there.run("runs", "resume", copy, "--json")
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

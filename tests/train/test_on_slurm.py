"""Runs on a real Slurm: queued, checkpointed, requeued, resumed; refused before the queue; failed once."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rsc.cluster.dev.cluster import DevCluster
from rsc.runs.folder import RunFolder

pytestmark = pytest.mark.slurm

SMALL = ("parallel.workers=1", "slurm.memory=2000M", "slurm.cpus_per_node=2")
SLOW = "train.fail_at=rank=0,step=1,kind=slow"  # 0.2 s a step


@pytest.fixture
def on_slurm(rsc_with_text: Any, slurm_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The command line in a workspace with approved text, on a cluster where nothing runs."""
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield rsc_with_text
    slurm_cluster.run(["scancel", "-u", pwd.getpwuid(os.getuid()).pw_name])


def wait_for(what: Callable[[], Any], *, patience_s: float = 300.0) -> Any:
    deadline_s = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.1)
    return found


def submit(rsc: Any, *overrides: str) -> tuple[RunFolder, str]:
    told = rsc.run("train", "language", *rsc.train_command(*SMALL, *overrides)[2:], "--on", "slurm")
    return RunFolder(rsc.workspace.runs / told["run"]), told["job"]


def state_of(cluster: DevCluster, job: str) -> str:
    return cluster.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"], check=False).strip()


def logs(run: RunFolder) -> str:
    return "\n".join(path.read_text() for path in run.path.glob("slurm-*.log"))


def ends_as(run: RunFolder, state: str) -> Any:
    return wait_for(lambda: run.record().state == state and run.record())


def test_a_run_goes_through_the_queue_and_equals_one_started_here(
    on_slurm: Any, slurm_cluster: DevCluster
) -> None:
    run, job = submit(on_slurm)
    ends_as(run, "finished")
    wait_for(lambda: state_of(slurm_cluster, job) in ("COMPLETED", ""))
    here = on_slurm.train("parallel.workers=1")
    assert on_slurm.losses(run.id) == on_slurm.losses(here["run"])
    shown = on_slurm.run("runs", "show", run.id, "--json")
    assert shown["job"] == job


@pytest.mark.slow
def test_a_preempted_run_goes_on_from_its_checkpoint(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    run, job = submit(on_slurm, SLOW, "train.steps=200")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 3)
    slurm_cluster.run(["scontrol", "requeue", job])
    record = ends_as(run, "finished")
    assert 0 < record.resumed_at < 200
    assert on_slurm.losses(run.id) == on_slurm.losses(
        on_slurm.train("parallel.workers=1", "train.steps=200")["run"]
    )


@pytest.mark.slow
def test_the_time_limit_ends_in_a_checkpoint_and_a_new_start(
    on_slurm: Any, slurm_cluster: DevCluster
) -> None:
    """The signal that Slurm sends before the limit, sent now."""
    run, job = submit(on_slurm, SLOW, "train.steps=200")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 3)
    slurm_cluster.run(["scancel", "--batch", "--signal=USR1", job])
    record = ends_as(run, "finished")
    assert 0 < record.resumed_at < 200
    assert logs(run).count("resuming") == 2


@pytest.mark.slow
def test_stop_ends_in_a_checkpoint_and_no_new_start_and_resume_goes_on(
    on_slurm: Any, slurm_cluster: DevCluster
) -> None:
    run, job = submit(on_slurm, SLOW, "train.steps=200")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 3)
    row = next(row for row in on_slurm.run("runs", "ls", "--json")["runs"] if row["id"] == run.id)
    assert (row["state"], row["job"]) == ("RUNNING", job)
    on_slurm.run("runs", "resume", run.id, expect=2)
    on_slurm.run("runs", "stop", run.id)
    ends_as(run, "requeue")
    wait_for(lambda: state_of(slurm_cluster, job) in ("FAILED", ""))
    told = on_slurm.run("runs", "resume", run.id, "--json")
    assert told["job"] != job
    assert "NumCPUs=2" in slurm_cluster.run(["scontrol", "show", "job", "-o", told["job"]])
    assert ends_as(run, "finished").resumed_at > 0


@pytest.mark.slow
def test_a_cancelled_run_is_not_started_again(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    run, job = submit(on_slurm, SLOW, "train.steps=200")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 3)
    slurm_cluster.run(["scancel", job])
    ends_as(run, "requeue")
    wait_for(lambda: state_of(slurm_cluster, job) in ("CANCELLED", ""))
    assert (
        "requeue"
        not in slurm_cluster.run(["scontrol", "show", "job", "-o", job], check=False).lower().split()
    )


def test_what_the_gate_refuses_never_reaches_the_queue(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    runs = set(on_slurm.workspace.runs.glob("*"))
    before = slurm_cluster.run(["squeue", "-h", "-t", "all", "-o", "%i"])
    on_slurm.add_text(["not approved"] * 8, name="raw", approved=False)
    on_slurm.run(*on_slurm.train_command("data.name=raw"), "--on", "slurm", expect=3)
    assert slurm_cluster.run(["squeue", "-h", "-t", "all", "-o", "%i"]) == before
    assert set(on_slurm.workspace.runs.glob("*")) == runs


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("cluster.nodes=1 cluster.spares=9", "wants 10 nodes"),
        ("slurm.gpus_per_node=8", "the most there: 4 GPUs"),
        ("slurm.partition=batsch", "no partition 'batsch'"),
        ("slurm.licenses=matlab", "has 0 of matlab"),
        ("slurm.memory=1T", "1,048,576 MiB"),
        ("slurm.tiem=1:00", "unknown key slurm.tiem"),
        ("slurm.partition='a#b'", "slurm.partition"),
    ],
)
def test_the_impossible_is_refused_with_its_arithmetic(on_slurm: Any, asked: str, words: str) -> None:
    runs = set(on_slurm.workspace.runs.glob("*"))
    told = on_slurm.run(*on_slurm.train_command(*SMALL, *asked.split(" ")), "--on", "slurm", expect=2)
    assert words in told["stderr"]
    assert set(on_slurm.workspace.runs.glob("*")) == runs


@pytest.mark.slow
def test_the_fault_of_a_user_fails_once(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    run, job = submit(on_slurm, "train.fail_at=rank=0,step=2,kind=data")
    record = ends_as(run, "failed")
    wait_for(lambda: state_of(slurm_cluster, job) in ("FAILED", ""))
    assert "does not decode" in record.reason
    assert logs(run).count("resuming") == 1


@pytest.mark.slow
def test_a_lost_node_costs_no_run(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    run, job = submit(on_slurm, SLOW, "train.steps=200")
    wait_for(lambda: len(on_slurm.metrics(run.id)) > 8)
    node = slurm_cluster.run(["squeue", "-h", "-j", job, "-o", "%N"]).strip()
    slurm_cluster.faults.kill_node(node, tell=True)
    try:
        assert ends_as(run, "finished").resumed_at >= 4
        assert slurm_cluster.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%N"]).strip() != node
    finally:
        slurm_cluster.faults.restore_node(node)
        slurm_cluster.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)
        slurm_cluster.wait_idle()


def test_a_waiting_run_is_explained_and_stopped(on_slurm: Any, slurm_cluster: DevCluster) -> None:
    slurm_cluster.run(["sbatch", "-N4", "--exclusive", "-o/dev/null", "--wrap=sleep 300"])
    run, job = submit(on_slurm)
    told = wait_for(lambda: on_slurm.run("explain", run.id, "--json"))
    assert told["state"] == "PENDING"
    assert on_slurm.run("runs", "show", run.id, "--json")["state"] == "PENDING"
    on_slurm.run("runs", "stop", run.id)
    wait_for(lambda: state_of(slurm_cluster, job) in ("CANCELLED", ""))

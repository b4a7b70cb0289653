"""`fail_at(rank, step, kind)` for each kind in a real run: what is told, what is lost, equal losses after."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rsc.errors import ConfigError
from rsc.recipes.faults import Fault, FaultKind, parse_fault
from rsc.recipes.sections import TrainConfig
from rsc.train.faults import FaultInjector
from tests.train.conftest import RULES, topics
from tests.warm import Command


def test_faults_are_a_closed_vocabulary() -> None:
    assert parse_fault("rank=1,step=30,kind=sigkill; rank=0,step=2,kind=nan") == (
        Fault(1, 30, FaultKind.SIGKILL),
        Fault(0, 2, FaultKind.NAN),
    )
    assert parse_fault("") == ()
    with pytest.raises(ConfigError, match="kind=K with K one of: sigkill, exception"):
        parse_fault("rank=1,step=30,kind=meteor")
    with pytest.raises(ValueError, match="is not rank=R"):
        TrainConfig(fail_at="rank=1")


def test_a_fault_fires_once_a_run_even_after_a_restart(tmp_path: Path) -> None:
    def start() -> FaultInjector:
        return FaultInjector("rank=0,step=3,kind=oom", rank=0, folder=tmp_path)

    first = start()
    first.at(2)
    with pytest.raises(MemoryError):
        first.at(3)
    start().at(3)
    FaultInjector("rank=0,step=3,kind=oom", rank=1, folder=tmp_path).at(3)


@pytest.mark.slow
def test_the_world_restarts_after_each_kind_and_the_losses_are_equal(
    rsc_with_text: Any, whole: dict[int, float]
) -> None:
    """One run meets them all. SIGKILL alone: test_end_to_end.py."""
    kinds = {3: "sigkill", 6: "exception", 9: "oom", 11: "hang"}
    faults = ";".join(f"rank=1,step={step},kind={kind}" for step, kind in kinds.items())
    result = rsc_with_text.train(f"train.fail_at={faults}", "train.hang_floor_s=5")
    assert (result["state"], result["restarts"], result["resumed_at"]) == ("finished", 4, 8)
    assert rsc_with_text.losses(result["run"]) == whole
    failures = rsc_with_text.events_of(result["run"], "failure")
    told = [(failure["rank"], failure["reason"], failure["step"]) for failure in failures]
    assert told == [(1, kind, step - 1) for step, kind in kinds.items()]
    resumed = [event for event in rsc_with_text.events_of(result["run"], "resumed") if event["rank"] == 0]
    assert [event["from"] for event in resumed] == [*["nothing"] * 2, *["checkpoint"] * 3]
    assert all((event["store_bytes_read"] > 0) == (event["step"] > 0) for event in resumed)
    assert result["loss"] == whole[12]
    assert "step 12/12" in result["stderr"], "the last step is always told"
    logs = rsc_with_text.workspace.runs / result["run"] / "logs"
    assert "faults.py" in (logs / "rank1.stacks").read_text()
    taken = [json.loads((logs / f"rank{rank}.collectives.json").read_text()) for rank in (0, 1)]
    begun = [int(dump["pg_status"]["0"]["last_enqueued_collective"]) for dump in taken]
    assert begun[0] > 0, "the flight recorder tells which collective a rank came to"


@pytest.mark.slow
@pytest.mark.parametrize("every", [4, 0], ids=["newer than checkpoints", "no checkpoint to read"])
def test_a_snapshot_in_memory_is_taken_up(rsc_with_text: Any, whole: dict[int, float], every: int) -> None:
    """At most N steps are done again, and no rank reads a byte of a stored checkpoint, if there is one."""
    result = rsc_with_text.train(
        "train.fail_at=rank=0,step=11,kind=sigkill", "train.snapshot_every=3", f"checkpoint.every={every}"
    )
    assert (result["state"], result["restarts"], result["resumed_at"]) == ("finished", 1, 9)
    assert rsc_with_text.losses(result["run"]) == whole
    told = rsc_with_text.events(result["run"])
    kinds = [event["kind"] for event in told]
    assert kinds[: kinds.index("restart")].count("checkpoint") == (2 if every else 0)
    resumed = [event for event in told[kinds.index("restart") :] if event["kind"] == "resumed"]
    assert sorted(event["rank"] for event in resumed) == [0, 1]
    nothing_read = {"from": "snapshot", "step": 9, "store_files_read": 0, "store_bytes_read": 0}
    assert all(event.items() >= nothing_read.items() for event in resumed)


@pytest.mark.slow
def test_bad_batch_is_skipped_or_ends_the_run_as_the_recipe_says(rsc_with_text: Any) -> None:
    fault = "train.fail_at=rank=1,step=7,kind=nan"
    result = rsc_with_text.train(fault)
    assert (result["state"], result["restarts"]) == ("finished", 0)
    (told,) = rsc_with_text.events_of(result["run"], "bad_batch")
    assert (told["step"], told["loss"], told["policy"]) == (7, "nan", "skip")
    ended = rsc_with_text.train(fault, "train.bad_loss=stop", expect=1)
    assert (ended["state"], ended["restarts"]) == ("failed", 0)
    assert "step 7: loss nan" in ended["reason"]


@pytest.mark.slow
def test_full_disk_costs_a_checkpoint_and_not_the_run(rsc_with_text: Any, whole: dict[int, float]) -> None:
    result = rsc_with_text.train("train.fail_at=rank=1,step=8,kind=disk_full;rank=1,step=11,kind=sigkill")
    assert (result["state"], result["resumed_at"]) == ("finished", 4)
    assert rsc_with_text.losses(result["run"]) == whole
    (failed,) = rsc_with_text.events_of(result["run"], "checkpoint_failed")
    assert failed["step"] == 8
    assert "No space left" in failed["reason"]


@pytest.mark.slow
def test_straggler_is_told_and_data_error_ends_the_run(rsc_with_text: Any) -> None:
    slow = rsc_with_text.train(
        "train.fail_at=rank=1,step=3,kind=slow", "train.heartbeat_s=0.05", "train.steps=24"
    )
    assert [event["rank"] for event in rsc_with_text.events_of(slow["run"], "straggler")] == [1]
    patient = rsc_with_text.train(
        "train.fail_at=rank=1,step=3,kind=slow",
        "train.heartbeat_s=0.05",
        "train.steps=24",
        "train.straggler_ratio=1e6",
    )
    assert rsc_with_text.events_of(patient["run"], "straggler") == []
    broken = rsc_with_text.train("train.fail_at=rank=0,step=5,kind=data", expect=2)
    assert broken["reason"].startswith("rank 0 failed first: injected fault: a sample that does not decode")


@pytest.mark.slow
def test_a_crash_loop_ends_with_its_reason(rsc_with_text: Any) -> None:
    faults = ";".join(f"rank=1,step={step},kind=exception" for step in (2, 2, 3))
    once = rsc_with_text.train(f"train.fail_at={faults}", "train.max_failures_without_progress=1", expect=1)
    assert "1 failures without a new step; the last: rank 1 failed first" in once["reason"]


def test_sigterm_checkpoints_with_code_75_and_the_resumed_losses_are_equal(
    rsc_with_text: Any, whole: dict[int, float]
) -> None:
    result = rsc_with_text.train("train.fail_at=rank=0,step=6,kind=sigterm", expect=75)
    assert (result["state"], result["step"]) == ("requeue", 6)
    resumed = rsc_with_text.run("runs", "resume", result["run"], "--json")
    assert (resumed["state"], resumed["resumed_at"]) == ("finished", 6)
    assert rsc_with_text.losses(result["run"]) == whole
    again = rsc_with_text.run("runs", "resume", result["run"], "--json")
    assert "nothing is left to do" in again["stderr"]


def wait_for_event(rsc: Any, run: str, kind: str, process: Command) -> None:
    """Until the running command's run tells of it."""
    while not rsc.events_of(run, kind):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_gives_130_and_the_run_can_be_resumed(rsc_with_text: Any, whole: dict[int, float]) -> None:
    command = rsc_with_text.train_command("train.fail_at=rank=0,step=7,kind=hang")
    process = rsc_with_text.start(*command)
    assert process.stderr is not None
    run = next(line.split()[1].rstrip(":") for line in process.stderr if line.startswith("run "))
    wait_for_event(rsc_with_text, run, "fault_injected", process)
    shown = rsc_with_text.run("runs", "show", run, "--json")
    assert (shown["state"], shown["step"]) == ("running", 6)
    assert shown["doing"].startswith("training; step 6 was told ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    resumed = rsc_with_text.run("runs", "resume", run, "--json")
    assert resumed["state"] == "finished"
    assert rsc_with_text.losses(run) == whole


@pytest.mark.slow
def test_damaged_checkpoint_is_told_and_the_one_before_is_used(
    rsc_with_text: Any, whole: dict[int, float]
) -> None:
    stopped = rsc_with_text.train("train.fail_at=rank=0,step=9,kind=sigterm", expect=75)
    folder = rsc_with_text.workspace.runs / stopped["run"] / "checkpoints"
    newest = sorted(folder.iterdir())[-1]
    damaged = next(newest.glob("rank-0001*"))
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    resumed = rsc_with_text.run("runs", "resume", stopped["run"], "--json")
    assert (resumed["state"], resumed["resumed_at"]) == ("finished", 8)
    assert f"checkpoint of step {stopped['step']} cannot be read by rank" in resumed["stderr"]
    assert rsc_with_text.losses(stopped["run"]) == whole
    assert {event["step"] for event in rsc_with_text.events_of(stopped["run"], "checkpoint_damaged")} == {
        int(newest.name.removeprefix("step-"))
    }


@pytest.mark.slow
def test_where_no_checkpoint_can_be_read_the_run_stops_at_once(rsc_with_text: Any) -> None:
    stopped = rsc_with_text.train("train.fail_at=rank=0,step=3,kind=sigterm", expect=75)
    folder = rsc_with_text.workspace.runs / stopped["run"] / "checkpoints"
    (root,) = folder.glob("*/root.rsc")
    root.write_bytes(root.read_bytes()[:-1])
    ended = rsc_with_text.run("runs", "resume", stopped["run"], "--json", expect=1)
    assert (ended["state"], ended["restarts"], ended["step"]) == ("failed", 0, 3)
    assert "none of the 1 checkpoints" in ended["reason"]


@pytest.mark.slow
def test_a_loss_spike_is_skipped_and_not_learned_from(rsc_with_text: Any) -> None:
    result = rsc_with_text.train(
        "train.steps=24", "train.spike_sigmas=20", "train.fail_at=rank=0,step=20,kind=spike"
    )
    assert (result["state"], result["restarts"]) == ("finished", 0)
    (told,) = rsc_with_text.events_of(result["run"], "bad_batch")
    assert (told["step"], told["policy"]) == (20, "skip")
    lines = {line["step"]: line for line in rsc_with_text.metrics(result["run"])}
    assert [step for step, line in lines.items() if not line["applied"]] == [20]


@pytest.mark.slow
def test_a_pipeline_rank_that_fails_does_not_hold_its_peers(rsc_with_text: Any) -> None:
    """They wait for its activations in a collective, whose own patience is minutes: nobody waits for that."""
    failures = [(3, 0, "exception"), (6, 1, "exception"), (9, 0, "sigkill"), (11, 1, "sigkill")]
    faults = ";".join(f"rank={rank},step={step},kind={kind}" for step, rank, kind in failures)
    result = rsc_with_text.train("parallel.pp=2", f"train.fail_at={faults}")
    assert (result["state"], result["restarts"], result["resumed_at"]) == ("finished", 4, 8)
    told = rsc_with_text.events_of(result["run"], "failure")
    assert [(each["rank"], each["reason"]) for each in told] == [(rank, kind) for _, rank, kind in failures]


@pytest.mark.slow
def test_a_run_without_a_sandbox_loses_its_supervisor_and_no_worker_outlives_it(fresh_rsc: Any) -> None:
    """No PID namespace ends them there: the hanging worker would wait beside the new ones for ever."""
    fresh_rsc.add_text(topics(60), rules=RULES.model_copy(update={"isolation": "none"}))
    process = fresh_rsc.start(*fresh_rsc.train_command("train.fail_at=rank=0,step=7,kind=hang"))
    run = next(line.split()[1].rstrip(":") for line in process.stderr if line.startswith("run "))
    wait_for_event(fresh_rsc, run, "fault_injected", process)
    workers = [event["pid"] for event in fresh_rsc.events_of(run, "worker")]
    supervisor = int(Path(f"/proc/{workers[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "started again" in err
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]

"""Run folders, boards, ledgers, progress lines: what lies around a run."""

from __future__ import annotations

import fcntl
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rsc.cluster.supervise.heartbeats import Board, Phase
from rsc.control.monitor import ProgressLine, outer_pid
from rsc.errors import ConfigError, DataError
from rsc.events import EventLog
from rsc.layers import to_toml
from rsc.recipes.recipe import load_recipe, recipe_of
from rsc.runs.code_version import code_facts
from rsc.runs.folder import (
    RunFolder,
    RunState,
    find_run,
    list_runs,
    unreadable_runs,
)
from rsc.runs.status import present
from rsc.runs.time_ledger import ledger
from rsc.runs.worker_events import WorkerEventTail, events_of_workers
from rsc.train.batches.streams import stream_seed


def make(runs: Path, clock: Any, *, recipe: str = "language") -> RunFolder:
    return RunFolder.create(runs, recipe=recipe, steps=10, lineage={"data": {"name": "posts"}}, clock=clock)


def test_a_run_is_named_by_date_recipe_and_four_hex(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    assert run.id.startswith("2026-11-21-language-")
    assert len(run.id.removeprefix("2026-11-21-language-")) == 4
    assert (run.record().state, run.record().steps) == (RunState.CREATED, 10)
    assert run.update(state=RunState.FINISHED, step=10) == run.record()


def test_runs_are_found_by_id_by_part_and_by_last(tmp_path: Path, clock: Any) -> None:
    first = make(tmp_path, clock)
    clock.advance(60)
    second = make(tmp_path, clock, recipe="vision")
    assert [run.id for run in list_runs(tmp_path)] == [first.id, second.id]
    assert find_run(tmp_path, "last") == find_run(tmp_path, second.id) == second
    assert find_run(tmp_path, first.id[-4:]) == first
    with pytest.raises(ConfigError, match="fits 2 runs"):
        find_run(tmp_path, "2026-11")
    with pytest.raises(ConfigError, match="there is no run 'none'"):
        find_run(tmp_path, "none")


def test_only_one_process_holds_a_run(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    assert run.holder() is None
    with run.locked():
        assert run.holder() == os.getpid()
        with pytest.raises(ConfigError, match=f"is being trained by process {os.getpid()}"), run.locked():
            pass
    with run.locked():
        pass
    assert run.holder() is None


def test_a_run_of_another_version_is_refused_with_that_version(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    settings = to_toml(load_recipe("language", overrides=["data.name=posts"]).resolved)
    (run.path / "resolved.toml").write_text(settings.replace("[train]", "[train]\nwarp = 9"))

    def complaint(**code: str) -> ConfigError:
        run.update(lineage={"code": {**code_facts(), **code}})
        with pytest.raises(ConfigError, match=r"unknown key train\.warp") as raised:
            recipe_of(run)
        return raised.value

    assert complaint().message.startswith("unknown key")
    older = complaint(version="0.0.9")
    assert older.message.startswith(f"run {run.id} was made by version 0.0.9 (sources ")
    assert older.hint is not None
    assert "install openrsc 0.0.9" in older.hint
    same_number = complaint(sources_sha256="ab" * 32)
    assert "(sources abababababab)" in same_number.message
    assert f"git rev-list -1 --before={run.record().created} HEAD" in (same_number.hint or "")


def test_what_a_newer_version_noted_of_a_run_is_passed_over(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    values = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**values, "mood": "good"}))
    assert [found.record().id for found in list_runs(tmp_path)] == [run.id]


def test_a_question_for_the_holder_keeps_nobody_out(tmp_path: Path, clock: Any) -> None:
    """It tries the lock for a moment; whoever wants it waits for that moment and is not refused."""
    run = make(tmp_path, clock)
    with run.locked():
        pass
    with run._gate(fcntl.LOCK_SH), (run.path / "lock").open() as question:
        fcntl.flock(question, fcntl.LOCK_SH | fcntl.LOCK_NB)
        taking = threading.Thread(target=lambda: taken.append(hold_once(run)))
        taken: list[int | None] = []
        taking.start()
        taking.join(0.05)
        assert not taken
    taking.join()
    assert taken == [os.getpid()]


def hold_once(run: RunFolder) -> int | None:
    with run.locked():
        return run.holder()


def test_the_holder_is_never_one_who_was_there_before(tmp_path: Path, clock: Any) -> None:
    """A killed holder leaves its number in the file; while another takes the run, nobody is told that one."""
    run = make(tmp_path, clock)
    told: list[int | None] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            told.append(run.holder())

    with run.locked():
        pass
    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(200):
        with run._gate(fcntl.LOCK_EX):
            (run.path / "lock").write_text("1")
        assert hold_once(run) == os.getpid()
    stop.set()
    asking.join()
    assert set(told) <= {None, os.getpid()}


def test_a_board_is_the_same_memory_for_everyone(tmp_path: Path) -> None:
    ours, theirs = (Board(tmp_path / "board", num_ranks=3) for _ in range(2))
    ours.clear()
    theirs.beat(1, phase=Phase.COMPUTE, step=7, loss=2.5)
    assert ours.rows["step"].tolist() == [0, 7, 0]
    assert float(ours.rows["loss"][1]) == 2.5
    ours.request_stop()
    assert theirs.stop_requested
    ours.clear()
    assert theirs.stop_requested
    assert theirs.rows["step"].tolist() == [0, 0, 0]


def test_a_running_run_says_its_step_and_what_it_does(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    ours, events = run.events(clock=clock), EventLog(events_of_workers(run.path), clock=clock)
    metrics = EventLog(run.path / "metrics" / "rank0.jsonl", clock=clock)

    def now() -> tuple[int, str]:
        clock.advance(2)
        found = present(run, now=clock.now())
        return found.step, found.doing

    assert now() == (0, "it is being made")
    ours.append("driven")
    assert now() == (0, "the supervisor is starting, for 2 s")
    events.append("resumed", rank=0, step=0)
    assert now() == (0, "the first step since the start is on its way, for 2 s")
    for step in range(1, 8):  # more than the tail that is read
        metrics.append("line", step=step, loss=1.0, step_s=1.0, padding="." * 20_000)
    events.append("checkpoint", step=4)
    assert now() == (7, "training; step 7 was told 2 s ago")
    events.append("restart", attempt=1)
    assert now() == (7, "the workers are being started again, for 2 s")
    events.append("resumed", rank=0, step=4)
    assert now()[0] == 4
    for step in (5, 10):
        metrics.append("line", step=step, loss=1.0, step_s=1.0)
    assert now() == (10, "the last checkpoint is being written, for 2 s")


def at(second: float) -> str:
    return f"2026-11-21T09:00:{second:06.3f}Z"


def test_the_ledger_counts_each_step_once_and_only_driven_time(clock: Any) -> None:
    events = [
        {"time": at(0), "kind": "driven"},
        {"time": at(8), "kind": "failure", "step": 3},
        {"time": at(10), "kind": "ended", "drove_s": 10.0},
        {"time": at(40), "kind": "driven"},
        {"time": at(50), "kind": "ended", "drove_s": 10.0},
    ]
    metrics = [{"step": step, "step_s": 2.0} for step in (1, 2, 3, 2, 3, 4)]
    account = ledger(events, metrics=metrics, now=clock.now())
    assert (account.driven_s, account.useful_s, account.lost_steps, account.failures) == (20.0, 8.0, 2, 1)
    assert account.ettr == pytest.approx(0.4)


def test_a_line_of_the_metrics_stands_for_the_steps_since_the_one_before(clock: Any) -> None:
    """metrics_every=4, fetched at step 8 from another machine, and thrown back once."""
    events = [
        {"time": at(0), "kind": "driven"},
        {"time": at(1), "kind": "resumed", "step": 8},
        {"time": at(9), "kind": "resumed", "step": 12},
        {"time": at(40), "kind": "ended", "drove_s": 40.0},
    ]
    metrics = [{"step": step, "step_s": 2.0} for step in (12, 16, 16, 20)]
    account = ledger(events, metrics=metrics, now=clock.now())
    assert (account.useful_s, account.lost_steps) == (24.0, 4)


def test_a_controller_that_died_is_counted_to_its_last_event(clock: Any) -> None:
    events = [
        {"time": at(0), "kind": "driven"},
        {"time": at(7), "kind": "checkpoint"},
        {"time": at(30), "kind": "driven"},
        {"time": at(35), "kind": "ended", "drove_s": 5.0},
    ]
    assert ledger(events, metrics=[], now=clock.now()).driven_s == 12.0


def test_a_clock_that_was_set_changes_no_account(clock: Any) -> None:
    back = [
        {"time": at(50), "kind": "driven"},
        {"time": at(10), "kind": "ended", "drove_s": 20.0},
        {"time": at(12), "kind": "driven"},
        {"time": at(3), "kind": "checkpoint"},
        {"time": at(4), "kind": "driven"},
        {"time": at(5), "kind": "ended", "drove_s": 1.0},
    ]
    assert ledger(back, metrics=[], now=clock.now()).driven_s == 21.0


def test_progress_is_one_plain_line_now_and_then_and_always_the_last() -> None:
    out = io.StringIO()
    line = ProgressLine(steps=100, out=out, every_s=10)
    for step in range(101):
        line.show(step=step, loss=1.0, items=step * 50, time_s=step / 10 + 1000)
    assert out.getvalue().splitlines() == [
        "step 0/100  loss 1.0000",
        "step 100/100  loss 1.0000  500 items/s  ETA 0 s",
    ]


def test_a_process_outside_a_sandbox_keeps_its_number() -> None:
    assert outer_pid(os.getpid(), ancestor=os.getppid()) == os.getpid()


def test_streams_are_apart_and_stay_what_they_were() -> None:
    seeds = {
        stream_seed(0, "weights"),
        stream_seed(1, "weights"),
        stream_seed(0, "step", 3, 1),
        stream_seed(0, "step", 31),
    }
    assert len(seeds) == 4
    assert stream_seed(0, "weights") == 4194789700723333633


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"id": 1}', b'{"state": "sideways"}', b"\xff", b"[" * 50_000]
)
def test_a_run_that_cannot_be_read_hides_no_other(content: bytes, tmp_path: Path, clock: Any) -> None:
    good = RunFolder.create(tmp_path, recipe="toy", steps=1, lineage={}, clock=clock)
    bad = RunFolder.create(tmp_path, recipe="bad", steps=1, lineage={}, clock=clock)
    (bad.path / "run.json").write_bytes(content)
    assert [run.id for run in list_runs(tmp_path)] == [good.id]
    assert unreadable_runs(tmp_path) == [bad.id]
    assert find_run(tmp_path, "last").id == good.id
    with pytest.raises(ConfigError, match=r"run\.json cannot be read"):
        bad.record()


def test_each_node_has_a_file_of_events_and_they_are_read_by_time(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    nodes = {node: EventLog(events_of_workers(run.path, node=node), clock=clock) for node in ("", "n1", "n2")}
    nodes["n2"].append("resumed", rank=2, step=0)
    tail = WorkerEventTail(run.path)
    for node in ("n1", "", "n2"):
        clock.advance(1)
        nodes[node].append("checkpoint", step=int(clock.monotonic_s()))
    late = EventLog(events_of_workers(run.path, node="late"), clock=clock)
    clock.advance(1)
    late.append("checkpoint", step=4)
    assert [event["step"] for event in tail.fresh()] == [1, 2, 3, 4]
    assert tail.fresh() == []
    assert [event["kind"] for event in run.told()] == ["resumed", *["checkpoint"] * 4]


def test_a_link_in_the_place_of_the_events_of_a_node_is_refused(tmp_path: Path, clock: Any) -> None:
    run = make(tmp_path, clock)
    (run.path / "logs").mkdir(exist_ok=True)
    (run.path / "logs" / "events").symlink_to(tmp_path)
    for read in (run.told, lambda: WorkerEventTail(run.path)):
        with pytest.raises(DataError):
            read()

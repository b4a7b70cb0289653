"""What a controller writes down of a run, and that nobody else does."""

from __future__ import annotations

import io
import json
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.sandbox.wrap import METHODS, Level, Method, Wrapped, wrap
from rsc.config import CipherChoice, Workspace
from rsc.control.admission import Admission, cipher_of
from rsc.control.controller import Controller
from rsc.control.drive import Drive
from rsc.control.monitor import ProgressLine, Watched
from rsc.control.run_plan import plan_run
from rsc.control.wishes import Wishes
from rsc.errors import IsolationRefused
from rsc.events import EventLog
from rsc.loader.config import DataConfig
from rsc.recipes.data_fit import SplitSamples
from rsc.recipes.recipe import load_recipe
from rsc.release.agent.job_scope import Served
from rsc.release.record.run_origin import DataUsed, RunOrigin
from rsc.runs.folder import RunFolder
from rsc.runs.worker_events import WorkerEventTail
from rsc.store.format.schema import Field, Schema
from tests.conftest import FakeClock


class OpenGate:
    """Admits everything and keeps no key."""

    def admit(self, data: DataConfig) -> Admission:
        return Admission(version=1, lineage={}, samples=SplitSamples(Schema((Field("text", "string"),))))

    def isolation(self, version: tuple[str, int], *, root_hash: str) -> Level:
        return "required" if version == ("strict", 1) else "none"

    def cipher(self, version: tuple[str, int], *, root_hash: str) -> CipherChoice:
        return "auto"

    def origin(self, run: str) -> RunOrigin:
        return RunOrigin(run, "language", "0" * 64, ())

    def record_start(self, origin: RunOrigin) -> None: ...

    def record_drive(self, run: str, *, isolation: str) -> None: ...

    def make_run_key(self, run: RunFolder) -> None: ...

    def serve(self, socket: Path, *, serves: Served) -> AbstractContextManager[None]:
        return nullcontext()


def controller_of(
    workspace: Workspace, *, clock: FakeClock, methods: tuple[Method, ...] = METHODS
) -> Controller:
    launcher = LocalLauncher(methods=methods)
    return Controller(workspace, gate=OpenGate(), launcher=launcher, clock=clock, say=lambda _: None)


def test_restarts_are_counted_once_in_a_crash_loop_of_the_supervisor(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two supervisors restarts its workers once and is lost; the second one was started again."""

    def lost(drive: Drive, command: Wrapped, **_: Any) -> Watched:
        run, line = drive.run, ProgressLine(steps=1, out=io.StringIO())
        watched = Watched(line, drive.say, run.events(clock=clock), WorkerEventTail(run.path))
        watched.restarts, watched.exit_code, watched.is_supervisor_lost = 1, 137, True
        return watched

    monkeypatch.setattr(Drive, "_watch", lost)
    overrides = ["data.name=x", "train.max_failures_without_progress=2"]
    controller = controller_of(Workspace(tmp_path), clock=clock)
    run, code = controller.start(load_recipe("language", overrides=overrides), workers=1)
    assert code == 137
    assert (run.record().state, run.record().restarts) == ("failed", 3)


class Held:
    """A process that the kernel lets go at the second wait."""

    pid, stdin, waits = 0, None, 0

    def __init__(self, *lines: str, words: str = "") -> None:
        failed = {"kind": "failed", "step": 3, "reason": "rank 1 waits", "hint": None, "exit_code": 4}
        self.stdout = io.StringIO("".join([*lines, json.dumps(failed), "\n"]))
        self.stderr = io.StringIO(words)

    def wait(self, timeout: float | None = None) -> int:
        self.waits += 1
        if timeout is not None:
            raise subprocess.TimeoutExpired("node", timeout)
        return 4


def test_the_reason_is_said_while_the_kernel_still_holds_a_process(tmp_path: Path, clock: FakeClock) -> None:
    said: list[str] = []
    path, line = tmp_path / "events.jsonl", ProgressLine(steps=1, out=io.StringIO())
    watched = Watched(line, said.append, EventLog(path, clock=clock), WorkerEventTail(tmp_path))
    held: Any = Held()
    watched.follow(held, wishes=Wishes())
    assert said == ["the kernel holds a process of the run (rank 1 waits)"]
    assert (watched.exit_code, watched.is_supervisor_lost, held.waits) == (4, False, 2)


NONSENSE = (
    "not JSON\x1b[2J\n",
    "[" * 100_000 + "\n",
    "x" * 3_000_000 + "\n",
    "\x00\ud800\n",
    "[]\n7\nnull\n{}\n",
    '{"kind": ["progress"]}\n',
    '{"kind": "end"}\n',
    *(
        json.dumps({"kind": "progress", "step": step, "loss": loss, "items": 1, "time_s": 1.0}) + "\n"
        for step, loss in (
            (11, 1.0),
            (-1, 1.0),
            (1e400, 1.0),
            (10**40, 1.0),
            (True, 1.0),
            ("1", 1.0),
            (1, "1"),
        )
    ),
    json.dumps({"kind": "failed", "step": 4, "reason": ["x"], "hint": None}) + "\n",
)


@pytest.mark.parametrize("line", NONSENSE, ids=range(len(NONSENSE)))
def test_a_line_that_is_no_report_is_dropped(tmp_path: Path, clock: FakeClock, line: str) -> None:
    said: list[str] = []
    path, out = tmp_path / "events.jsonl", io.StringIO()
    log, progress = EventLog(path, clock=clock), ProgressLine(steps=10, out=out)
    watched = Watched(progress, said.append, log, WorkerEventTail(tmp_path), steps=10)
    held: Any = Held(line, line)
    watched.follow(held, wishes=Wishes())
    assert said[0] == "the supervisor wrote a line that is no report; such lines are dropped"
    assert (watched.step, watched.loss, watched.reason, out.getvalue()) == (3, None, "rank 1 waits", "")
    assert len(said) == 2, "said once"


def test_words_and_reasons_of_a_supervisor_stay_on_their_line_without_escapes(
    tmp_path: Path, clock: FakeClock
) -> None:
    said: list[str] = []
    path, line = tmp_path / "events.jsonl", ProgressLine(steps=10, out=io.StringIO())
    watched = Watched(line, said.append, EventLog(path, clock=clock), WorkerEventTail(tmp_path), steps=10)
    restart = {
        "kind": "restart",
        "rank": 0,
        "step": 1,
        "reason": "x\x1b]0;t\x07\nrun r1 finished",
        "restarts": 1,
    }
    held: Any = Held(json.dumps(restart) + "\n", words="warning\x1b[31m\r\n" * 3000)
    watched.follow(held, wishes=Wishes())
    assert "rank 0 failed at step 1 (x\\x1b]0;t\\x07\\x0arun r1 finished)" in "".join(said)
    assert not any("\x1b" in each or "\n" in each or "\r" in each for each in said)
    assert len(said) < 1100
    assert "the supervisor wrote more than 1000 lines; the rest is dropped" in said


def test_what_a_worker_writes_beside_events_is_passed_over_or_told(tmp_path: Path, clock: FakeClock) -> None:
    """Code that trains may write anything into the events of its run."""
    said: list[str] = []
    path, line = tmp_path / "logs" / "events.jsonl", ProgressLine(steps=1, out=io.StringIO())
    log = EventLog(path, clock=clock)
    watched = Watched(line, said.append, log, WorkerEventTail(tmp_path))
    with path.open("a") as file:
        file.write('7\n[]\n{"kind": "checkpoint"}\n{"time": 3, "kind": []}\n{"time"\n' + "[" * 100_000 + "\n")
    log.append("checkpoint_failed", step=2)
    log.append("checkpoint_failed", step=3, reason="no room")
    held: Any = Held()
    watched.follow(held, wishes=Wishes())
    assert said[:2] == [
        "an event of kind 'checkpoint_failed' is not as RSC writes it",
        "checkpoint of step 3 failed: no room",
    ]
    assert [event["kind"] for event in RunFolder(tmp_path).told()] == ["checkpoint_failed"]


PAPERS = ("run.json", "resolved.toml", "provenance.json", "events.jsonl")
PARTS = ("metrics", "logs", "checkpoints", "tensorboard", "drill")
ATTACK = f"""
for paper in {" ".join(PAPERS)}; do
  echo new > $paper; rm -f $paper; echo new > logs/other; mv -f logs/other $paper; ln -sf /tmp/x $paper
done
mv logs elsewhere; rm -rf metrics; mkdir export; touch .run.json.7
touch logs/ready; while [ ! -e logs/go ]; do sleep 0.02; done
echo new > run.json; mv -f logs/other run.json
for part in {" ".join(PARTS)}; do echo mine > $part/mine; done
"""


@pytest.mark.parametrize("method", ["bwrap", "unshare"])
def test_workers_cannot_write_replace_or_remove_the_papers_of_their_run(
    method: Method, tmp_path: Path, clock: FakeClock
) -> None:
    """Not even after the controller, outside, put a new record in the place of the old one."""
    try:
        wrap(["true"], level="required", methods=(method,))
    except IsolationRefused as error:
        pytest.skip(error.message)
    workspace = Workspace(tmp_path)
    loaded = load_recipe("language", overrides=["data.name=x", "parallel.workers=1"])
    (workspace.data / "x").mkdir(parents=True)
    controller = controller_of(workspace, clock=clock, methods=(method,))
    plan = plan_run(loaded, gate=controller.gate, runs=workspace.runs, workers=1)
    run = controller.make(plan)
    run.events(clock=clock).append("driven")
    before = {name: (run.path / name).read_bytes() for name in PAPERS}
    socket = tmp_path / "agent" / "sock"
    socket.parent.mkdir()
    told = controller._drive(run, plan.recipe, isolation="required").command(socket)
    attack = [*told.argv[: told.argv.index("--") + 1], "sh", "-c", ATTACK]
    with subprocess.Popen(attack, env=told.environment, stderr=subprocess.PIPE, text=True) as process:
        while not (run.path / "logs" / "ready").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        assert {name: (run.path / name).read_bytes() for name in PAPERS} == before
        record = run.update(restarts=1)
        (run.path / "logs" / "go").touch()
        process.communicate()
    assert run.record() == record
    assert {path.name for path in run.path.iterdir() if path.is_file()} == set(PAPERS)
    assert {path.parent.name for path in run.path.glob("*/mine")} == set(PARTS)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["auto"], "auto"),
        (["auto", "aegis-256"], "aegis-256"),
        (["aegis-256", "aes-256-gcm", "auto"], "aes-256-gcm"),
    ],
)
def test_checkpoints_follow_the_strictest_policy_of_what_a_run_saw(
    asked: list[CipherChoice], chosen: CipherChoice
) -> None:
    class PinnedGate(OpenGate):
        def cipher(self, version: tuple[str, int], *, root_hash: str) -> CipherChoice:
            return asked[version[1]]

    seen = tuple(DataUsed("posts", number, "0" * 64) for number in range(len(asked)))
    assert cipher_of(PinnedGate(), RunOrigin("run", "language", "0" * 64, seen)) == chosen

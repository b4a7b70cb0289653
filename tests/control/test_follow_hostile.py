"""`rsc runs follow` and the figures of a run, where its workers write whatever they like into their files."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rsc.api.run_records import metrics_of
from rsc.clock import Clock, SystemClock
from rsc.control.follow import Following
from rsc.runs.folder import RunFolder, RunState
from rsc.runs.status import present

TIME = "2026-12-01T00:00:00.000Z"
GOOD = {"time": TIME, "step": 3, "loss": 1.5, "step_s": 0.1, "items": 8}
HUGE = 10**400
VALUES = ("x", "\x1b[2J", None, [], {}, True, -1, 1.5, HUGE, -HUGE, float("inf"), float("nan"))
LINES = [{**GOOD, name: value} for name in (*GOOD, "val_loss", "\x1b[31m") for value in VALUES]
EVENTS = [
    {"time": TIME, "kind": kind, "step": step, "rank": 0, "reason": text, "loss": text, "message": text}
    for kind in ("restart", "failure", "warning", "bad_batch", "checkpoint_failed", "checkpoint_damaged")
    for step in (1, HUGE, "x")
    for text in ("plain", "\x1b]0;owned\x07", "{step.__class__}", "\u202e", HUGE)
]


@dataclass
class OneLook(Clock):
    """Whoever drives the run is gone after the first pause."""

    driven: ExitStack

    def now(self) -> datetime:
        return datetime(2026, 12, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.driven.close()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, recipe="language", steps=10, lineage={}, clock=SystemClock())
    run.update(state=RunState.RUNNING)
    for folder in ("metrics", "logs"):
        (run.path / folder).mkdir(exist_ok=True)
    (run.path / "logs/events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    return run


@pytest.mark.parametrize("line", LINES, ids=lambda line: repr(list(line.items())[-1])[:40])
def test_no_line_of_metrics_ends_a_reader(run: RunFolder, line: dict[str, object]) -> None:
    (run.path / "metrics/rank0.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(line) + "\n")
    said: list[str] = []
    with ExitStack() as driven:
        driven.enter_context(run.locked())
        Following(run, said.append, OneLook(driven)).to_its_end()
    assert all(each.isprintable() for each in said)
    assert metrics_of(run)["step"][0] == 3
    assert present(run, now=OneLook(ExitStack()).now()).step is not None

"""Starts that led to nothing are counted over jobs, and end a storm of requeues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsc.control.crash_loop import fruitless_starts, refuse_crash_loop
from rsc.errors import ResourceError
from rsc.runs.folder import RunFolder

START = {"kind": "driven"}


def end(code: int) -> dict[str, Any]:
    return {"kind": "ended", "exit_code": code}


def saved(step: int) -> dict[str, Any]:
    return {"kind": "checkpoint", "step": step}


@pytest.mark.parametrize(
    ("events", "count"),
    [
        ([], 0),
        ([START], 1),
        ([START, START, START], 3),
        ([START, saved(4), START], 1),
        ([START, saved(4), START, saved(4), START], 2),
        ([START, saved(4), START, saved(8)], 0),
        ([START, end(75), START, end(75)], 0),
        ([START, START, end(75), START], 1),
        ([START, end(137), START, end(137)], 2),
        ([START, end(1), START], 2),
        ([START, end(130)], 0),
    ],
)
def test_starts_without_a_newer_checkpoint_are_counted(events: list[dict[str, Any]], count: int) -> None:
    assert fruitless_starts(events) == count


def test_the_run_is_marked_and_not_started_again(tmp_path: Path, clock: Any) -> None:
    run = RunFolder.create(tmp_path, recipe="language", steps=10, lineage={}, clock=clock)
    facts = {"workers": 1, "isolated": False, "method": "open", "reason": ""}
    for _ in range(2):
        run.events(clock=clock).append("driven", **facts)
    refuse_crash_loop(run, limit=3)
    run.events(clock=clock).append("driven", **facts)
    with pytest.raises(ResourceError, match="3 starts in a row"):
        refuse_crash_loop(run, limit=3)
    assert run.record().state == "failed"

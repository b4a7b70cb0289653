"""Starts of a run that led to nothing, over jobs and nodes: what ends a storm of requeues.

A controller that is killed, or whose node is lost, leaves no word; its next start finds `driven` in the
events without an `ended`. A start counts as fruitless until a newer checkpoint is durable; one that ended by
a checkpoint on request (a time limit, a preemption) counts as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rsc.errors import Interrupted, RequeueMe, ResourceError
from rsc.runs.folder import RunFolder, RunState

_WANTED = (0, RequeueMe.exit_code, Interrupted.exit_code)


def fruitless_starts(events: Iterable[Mapping[str, Any]]) -> int:
    """How many of the newest starts in a row brought no checkpoint and were not asked to leave."""
    fruitless, best, is_open = 0, 0, False
    for event in events:
        if event["kind"] == "driven":
            fruitless += is_open
            is_open = True
        elif event["kind"] == "checkpoint" and event["step"] > best:
            best, fruitless, is_open = event["step"], 0, False
        elif event["kind"] == "ended":
            fruitless = 0 if event["exit_code"] in _WANTED else fruitless + is_open
            is_open = False
    return fruitless + is_open


def refuse_crash_loop(run: RunFolder, *, limit: int) -> None:
    """Raises ResourceError, and marks the run as failed, where `limit` starts in a row led to nothing."""
    count = fruitless_starts(run.told())
    if count < limit:
        return
    reason = f"{count} starts in a row ended without a new checkpoint: not started again"
    with run.locked():
        run.update(state=RunState.FAILED, reason=reason)
    raise ResourceError(
        f"run {run.id}: {reason} (train.max_failures_without_progress is {limit})",
        hint=f"`rsc runs show {run.id}` prints how they ended; `rsc runs resume {run.id}` starts it again",
    )

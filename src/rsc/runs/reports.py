"""What workers and their supervisor may say of a run, and nothing else: the kinds, and the facts of each.

They say it in files that they write themselves and on the supervisor's pipe. Code that trains on private data
may write anything there, so whoever reads takes a line whose facts have these types, or none of it.

Not covered: whether it is true. A worker that reports a loss it never had is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rsc.events import is_event

_MOST_STEPS = 1 << 53  # what a float counts exactly
_MOST_LETTERS = 2000  # of a sentence; ours have some hundred

Check = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS


def _is_number(value: Any) -> bool:
    """NaN and infinity are losses too."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_STEPS
    )


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and 0 <= value < _MOST_STEPS


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_LETTERS


def _is_rank(value: Any) -> bool:
    return _is_count(value) and value < 1 << 31


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_none(value: Any) -> bool:
    return value is None


_EVENTS: dict[str, dict[str, Check]] = {
    "worker_started": {"rank": _is_rank, "pid": _is_count, "attempt": _is_count},
    "placed": {"world": _is_count},
    "node_joined": {"node": _is_text},
    "node_lost": {"node": _is_text, "reason": _is_text},
    "resumed": {"step": _is_count},
    "restart": {"attempt": _is_count},
    "failure": {"step": _is_count, "rank": _is_rank, "reason": _is_text, "message": _is_text},
    "gave_up": {"step": _is_count, "reason": _is_text},
    "bad_batch": {"step": _is_count, "loss": _is_text},
    "straggler": {"rank": _is_rank, "step": _is_count, "own_s": _is_seconds},
    "checkpoint": {"step": _is_count},
    "checkpoint_failed": {"step": _is_count, "reason": _is_text},
    "checkpoint_damaged": {"step": _is_count, "rank": _is_rank, "reason": _is_text},
    "problems": {"counts": _is_text},
    "stopped_early": {"step": _is_count, "best_step": _is_count},
    "fault_injected": {},
    "peak": {},
    "snapshots": {},
    "warning": {"message": _is_text},
}
_OF_CONTROLLER: dict[str, dict[str, Check]] = {
    "driven": {},
    "worker": {"rank": _is_rank, "pid": _is_count},
    "failure": {"step": _is_count, "reason": _is_text, "message": _is_text, "rank": _is_none},
    "ended": {"step": _is_count, "exit_code": _is_number, "drove_s": _is_seconds},
    "energy": {"used_wh": _is_seconds, "source": _is_text},
    "checkpoint_copied": {"step": _is_count},
    "checkpoint_copy_failed": {"step": _is_count, "reason": _is_text},
    "mover_started": {"pid": _is_count},
    "mover_lost": {"code": _is_number},
}
_SPOKEN: dict[str, dict[str, Check]] = {
    "progress": {"step": _is_count, "loss": _is_number, "items": _is_count, "time_s": _is_seconds},
    "worker": {"rank": _is_rank, "pid": _is_count, "attempt": _is_count},
    "started": {"step": _is_count},
    "restart": {"rank": _is_rank, "step": _is_count, "reason": _is_text, "restarts": _is_count},
    "end": {"step": _is_count},
    "failed": {"step": _is_count, "reason": _is_text, "hint": _is_text_or_none},
}
_METRICS: dict[str, Check] = {"step": _is_count, "loss": _is_number_or_none, "step_s": _is_seconds}


def is_event_of_workers(line: Mapping[str, Any]) -> bool:
    """Whether it is an event that ranks or their supervisor write. The controller's own have other kinds:
    `driven` or `ended` in a file of the workers is a forgery."""
    return is_event(line) and _fits(line, _EVENTS.get(line["kind"]))


def is_event_of_controller(line: Mapping[str, Any]) -> bool:
    """Whether it is an event that the controller writes. Without a sandbox a worker can write there too."""
    return is_event(line) and _fits(line, _OF_CONTROLLER.get(line["kind"]))


def is_metrics(line: Mapping[str, Any]) -> bool:
    """Whether it is a line of metrics: figures that a float holds, whatever they are called."""
    if not (is_event({**line, "kind": "metrics"}) and _fits(line, _METRICS)):
        return False
    return _is_count(line.get("items", 0)) and all(
        abs(value) < _MOST_STEPS for value in line.values() if isinstance(value, int)
    )


def spoken(line: Mapping[str, Any], *, steps: int) -> dict[str, Any] | None:
    """The kind and the known facts of what the supervisor says; None for anything else, or a step that the
    run does not have."""
    facts = _SPOKEN.get(line["kind"]) if isinstance(line.get("kind"), str) else None
    if facts is None or not _fits(line, facts) or line.get("step", 0) > steps:
        return None
    return {name: line[name] for name in ("kind", *facts)}


def _fits(line: Mapping[str, Any], facts: Mapping[str, Check] | None) -> bool:
    return facts is not None and all(name in line and check(line[name]) for name, check in facts.items())

"""Where a run is that is being trained: from the ends of its metrics and events. No key, no torch.

`run.json` gets its step when a drive ends; until then the newest line of rank 0 is what there is to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rsc.clock import parse_timestamp
from rsc.errors import DataError
from rsc.runs.folder import RunFolder
from rsc.units import format_seconds

_STARTING = {
    "driven": "the supervisor is starting",
    "worker_started": "the workers build the model and load its state",
    "restart": "the workers are being started again",
    "resumed": "the first step since the start is on its way",
}
"""What follows on an event, until the next one or the next step."""


@dataclass(frozen=True)
class Present:
    step: int
    """The newest that ended; after a restart, where the workers go on from."""
    loss: float | None
    """Of the newest step that was told; None before there was one."""
    doing: str
    """One sentence with its age, from which a person sees a run that hangs."""


def present(run: RunFolder, *, now: datetime) -> Present:
    """The moment as it stands in the files; reads the last 64 KiB of three of them."""
    try:
        metrics, events = list(run.metrics(newest=True)), run.told(newest=True)
    except DataError as error:  # one run must not keep the others out of a list
        return Present(run.record().step, None, f"its files cannot be read: {error.message}")
    return _present(metrics[-1] if metrics else None, events=events, steps=run.record().steps, now=now)


def _present(
    line: Mapping[str, Any] | None, *, events: Sequence[Mapping[str, Any]], steps: int, now: datetime
) -> Present:
    starting = next((event for event in reversed(events) if event["kind"] in _STARTING), None)
    loss = line["loss"] if line is not None else None
    if starting is not None and (line is None or starting["time"] > line["time"]):
        step = starting["step"] if starting["kind"] == "resumed" else line["step"] if line is not None else 0
        return Present(step, loss, f"{_STARTING[starting['kind']]}, for {_age(starting, now=now)}")
    if line is None:
        return Present(0, None, "it is being made")
    if line["step"] >= steps:
        return Present(line["step"], loss, f"the last checkpoint is being written, for {_age(line, now=now)}")
    return Present(line["step"], loss, f"training; step {line['step']} was told {_age(line, now=now)} ago")


def _age(line: Mapping[str, Any], *, now: datetime) -> str:
    return format_seconds(max(0.0, (now - parse_timestamp(line["time"])).total_seconds()))

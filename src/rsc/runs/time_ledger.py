"""Where the time of a run went, from its events and metrics: useful steps, lost steps, ETTR. No torch.

ETTR (effective training time ratio; Kokolis et al. 2024, arXiv:2410.21680) = time of steps that counted
over wall time while the run was driven. A step that was done twice counted once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rsc.clock import parse_timestamp


@dataclass(frozen=True)
class Ledger:
    driven_s: float
    """Wall time from each start of the controller to its end."""
    useful_s: float
    """Time of the steps that the run's result is made of."""
    lost_steps: int
    """Steps that were done again."""
    failures: int
    checkpoints: int
    failed_checkpoints: int
    bad_batches: int

    @property
    def ettr(self) -> float | None:
        """None before anything was driven."""
        return self.useful_s / self.driven_s if self.driven_s > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ettr": self.ettr}


def ledger(
    events: Sequence[Mapping[str, Any]], *, metrics: Iterable[Mapping[str, Any]], now: datetime
) -> Ledger:
    """Add up. `metrics` are the lines of one rank in written order."""
    seconds: dict[int, float] = {}
    again: list[int] = []
    for line in metrics:
        if line["step"] in seconds:
            again.append(line["step"])
        seconds[line["step"]] = line["step_s"]
    begin = min((event["step"] for event in events if event["kind"] == "resumed"), default=0)
    spans = _spans(seconds, begin=begin)
    counts = {kind: sum(event["kind"] == kind for event in events) for kind in _COUNTED}
    return Ledger(
        driven_s=_driven_s(events, now=now),
        useful_s=sum(seconds[step] * span for step, span in spans.items()),
        lost_steps=sum(spans[step] for step in again),
        failures=counts["failure"],
        checkpoints=counts["checkpoint"],
        failed_checkpoints=counts["checkpoint_failed"],
        bad_batches=counts["bad_batch"],
    )


def _spans(steps: Iterable[int], *, begin: int) -> dict[int, int]:
    """Steps that each line of the metrics stands for (`train.metrics_every`): those since the line before;
    for the first one, since the step that this record begins at."""
    return {step: step - before for before, step in itertools.pairwise([begin, *sorted(steps)])}


_COUNTED = ("failure", "checkpoint", "checkpoint_failed", "bad_batch")


def _driven_s(events: Sequence[Mapping[str, Any]], *, now: datetime) -> float:
    """Sum of the spans from `driven` to `ended`, which says how long that was: a clock may be set meanwhile.
    A span without an end goes to its last event, or to `now` while it may still run."""
    total, start, latest = 0.0, None, None
    for event in events:
        moment = parse_timestamp(event["time"])
        if event["kind"] == "driven":
            if start is not None and latest is not None:
                total += max(0.0, (latest - start).total_seconds())
            start = moment
        elif event["kind"] == "ended" and start is not None:
            total, start = total + event["drove_s"], None
        latest = moment
    return total + (max(0.0, (now - start).total_seconds()) if start is not None else 0.0)

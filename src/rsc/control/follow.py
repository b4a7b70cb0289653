"""Follow a run that another process drives: its steps and events from its files, until nobody drives it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rsc.clock import Clock, parse_timestamp
from rsc.control.monitor import ProgressLine, StepProgress
from rsc.errors import ConfigError, DataError
from rsc.runs.folder import RunFolder, RunState
from rsc.runs.reports import is_event_of_workers
from rsc.runs.worker_events import WorkerEventTail
from rsc.untrusted import printable

_LOOK_S = 0.5
_TOLD = {
    "restart": "the workers are started again",
    "checkpoint_failed": "checkpoint of step {step} failed: {reason}",
    "checkpoint_damaged": "checkpoint of step {step} cannot be read by rank {rank}: {reason}",
    "failure": "rank {rank} failed at step {step} ({reason})",
    "bad_batch": "the batch of step {step} was left out: loss {loss}",
    "stopped_early": "stopped early at step {step}: none was better than {best_step}",
    "warning": "{message}",
}


@dataclass(frozen=True)
class Following:
    run: RunFolder
    say: Callable[[str], None]
    clock: Clock

    def to_its_end(self) -> None:
        """Show what happens from now on. Raises ConfigError for a run that is not being trained."""
        if self.run.holder() is None and self.run.record().state is not RunState.CREATED:
            record = self.run.record()
            raise ConfigError(
                f"run {self.run.id} is not running ({record.state} at step {record.step})",
                hint=f"rsc runs show {self.run.id}; or go on with it: rsc runs resume {self.run.id}",
            )
        line = ProgressLine(steps=self.run.record().steps)
        events = WorkerEventTail(self.run.path)
        seen, items, is_driven = "", 0, True
        try:
            while is_driven:
                is_driven = self.run.holder() is not None
                self._tell(events, line)
                for step in self._steps_after(seen):
                    seen, items = step["time"], items + int(step.get("items") or 0)
                    time_s = parse_timestamp(seen).timestamp()
                    line.show(step=step["step"], loss=step["loss"], items=items, time_s=time_s)
                if is_driven:
                    self.clock.sleep(_LOOK_S)
        finally:
            line.close()

    def _tell(self, tail: WorkerEventTail, line: StepProgress) -> None:
        for event in filter(is_event_of_workers, tail.fresh()):
            sentence = _TOLD.get(event["kind"])
            if sentence is not None:
                line.close()
                with suppress(KeyError):
                    self.say(printable(sentence.format(**event), keep=""))

    def _steps_after(self, seen: str) -> list[dict[str, Any]]:
        """Those in the end of rank 0's metrics that were written after `seen`; the last one at first."""
        try:
            lines = [each for each in self.run.metrics(newest=True) if each["loss"] is not None]
        except DataError:
            return []  # something else lies in its place: there is nothing to show
        return [each for each in lines if each["time"] > seen] if seen else lines[-1:]

"""Is the machine's clock behind the log, and was it set back before? Expiry, retention and leases follow it.

Not covered: a clock that was set back and forward again between two records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rsc.clock import parse_timestamp, timestamp
from rsc.release.verify.promise import Breach, Promise, judge

TOLERANCE = timedelta(minutes=1)
"""A clock that is kept by NTP steps back by less, and processes that log at once stamp out of order."""


@dataclass
class LogTimes:
    """Times of the log's records, seen as they pass by."""

    newest: str = ""
    newest_index: int = -1
    steps_back: list[tuple[int, timedelta]] = field(default_factory=list)
    """Records that are older than one before them, and by how much."""

    def watching(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        last = ""
        for entry in entries:
            time = entry["time"]  # of one width and zone (rsc.clock.timestamp): text compares as time does
            if time < last:
                self._step_back(entry["index"], before=last, now=time)
            if time > self.newest:
                self.newest, self.newest_index = time, entry["index"]
            last = time
            yield entry

    def _step_back(self, index: int, *, before: str, now: str) -> None:
        by = parse_timestamp(before) - parse_timestamp(now)
        if by > TOLERANCE:
            self.steps_back.append((index, by))

    def judged(self, now: datetime) -> Promise:
        """Broken while the clock is behind the newest record; earlier steps back are reported."""
        behind = parse_timestamp(self.newest) - now if self.newest else timedelta()
        breaches = []
        if behind > TOLERANCE:
            what = (
                f"it is {timestamp(now)[:19]}Z here, and record {self.newest_index} of the log was written "
            )
            breaches.append(Breach(f"{what}at {self.newest[:19]}Z: set the clock, or find out who set it"))
        told = "no record of the log is newer than now"
        if self.steps_back:
            index, by = self.steps_back[-1]
            seconds = timedelta(seconds=round(by.total_seconds()))
            told += f"; set back {len(self.steps_back)} times before, last by {seconds} before record {index}"
        return judge("clock not behind log", breaches, told=told)

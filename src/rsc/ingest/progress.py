"""How far an import is: share, rate and time left, for people who wait."""

from __future__ import annotations

import sys
from typing import Protocol, TextIO

from rsc.clock import Clock
from rsc.units import format_bytes, format_seconds


class Progress(Protocol):
    def update(self, *, done_bytes: int, total_bytes: int, num_records: int) -> None:
        """Called after every part."""
        ...

    def finish(self) -> None: ...


class Silent:
    def update(self, *, done_bytes: int, total_bytes: int, num_records: int) -> None:
        pass

    def finish(self) -> None:
        pass


class ImportProgressLine:
    """One line on a terminal, redrawn; elsewhere a line every `log_every_s`, so that logs stay short."""

    def __init__(self, *, clock: Clock, stream: TextIO | None = None, log_every_s: float = 30.0) -> None:
        self._clock = clock
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._every_s = 0.2 if self._is_terminal else log_every_s
        self._started_s = self._shown_s = clock.monotonic_s()
        self._first_bytes: int | None = None
        self._has_line = False

    def update(self, *, done_bytes: int, total_bytes: int, num_records: int) -> None:
        """The rate counts from the first update, so that bytes of an earlier attempt do not flatter it."""
        now_s = self._clock.monotonic_s()
        if self._first_bytes is None:
            self._first_bytes = done_bytes
        if now_s - self._shown_s < self._every_s:
            return
        self._shown_s = now_s
        rate = (done_bytes - self._first_bytes) / max(now_s - self._started_s, 1e-9)
        self._show(progress_text(done_bytes, total_bytes, num_records=num_records, rate_bytes_per_s=rate))

    def finish(self) -> None:
        """Leave the terminal's line clean."""
        if self._has_line and self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _show(self, text: str) -> None:
        self._stream.write(f"\r\033[K{text}" if self._is_terminal else f"{text}\n")
        self._stream.flush()
        self._has_line = True


def progress_text(done_bytes: int, total_bytes: int, *, num_records: int, rate_bytes_per_s: float) -> str:
    """`importing  42 %  12,345 records  4.20 MiB/s  3m 05s left`; no percentage where it would pass 99."""
    parts = ["importing"]
    left_bytes = total_bytes - done_bytes
    if 0 < left_bytes < total_bytes:
        parts.append(f"{min(99, 100 * done_bytes // total_bytes)} %")
    parts += [f"{num_records:,} records", f"{format_bytes(rate_bytes_per_s)}/s"]
    if left_bytes > 0 and rate_bytes_per_s > 0:
        parts.append(f"{format_seconds(left_bytes / rate_bytes_per_s)} left")
    return "  ".join(parts)

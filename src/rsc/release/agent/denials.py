"""Refusals that repeat are counted instead of written again: the log is for ever, and asking is free.

The first of a kind, and some more, are in the log before their answers go out; further ones in one minute
become one record with `times`. A worker that asks for everything that it can name does not fill the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

WINDOW_S = 60.0
_MOST_KINDS = 64  # in a window
_MOST_REPEATS = 16  # of all kinds together that are written one by one: a worker that is denied asks again
_OTHERS = {"kind": "key_denied", "reason": "refusals of many kinds: too many to name"}

Record = Mapping[str, Any]


class Denials:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[Record, int]] = {}
        self._repeats = 0
        self._began_s: float | None = None

    def is_first(self, record: Record, *, now_s: float) -> bool:
        """Whether this refusal has to be written; else it is counted."""
        with self._lock:
            if self._began_s is None:
                self._began_s = now_s
            name = repr(sorted(record.items()))
            if name not in self._counts and len(self._counts) < _MOST_KINDS:
                self._counts[name] = (record, 0)
                return True
            if name in self._counts and self._repeats < _MOST_REPEATS:
                self._repeats += 1
                return True
            kept, count = self._counts.get(name) or self._counts.get("", (_OTHERS, 0))
            self._counts[name if name in self._counts else ""] = (kept, count + 1)
            return False

    def take(self, *, now_s: float, all_of_it: bool = False) -> list[dict[str, Any]]:
        """One record for each kind that repeated, once its window is over."""
        with self._lock:
            if self._began_s is None or not (all_of_it or now_s - self._began_s >= WINDOW_S):
                return []
            over, self._counts, self._repeats, self._began_s = self._counts, {}, 0, None
        return [{**record, "times": count} for record, count in over.values() if count]

"""The keys that the ranks of one start meet by: written once, read by many, asked for before they are there.

A rank asks its node's agent over a pair of sockets, the agent asks the job once for all its ranks and
remembers the answer (a tree), so the job hears of a key once a node, however many ranks want it. One node has
no job to ask: its agent is the top of the tree.

    rank -> agent   set KEY value | get KEY | check KEYS       agent -> rank   value | checked
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MOST_KEYS = 1 << 20
MOST_VALUE_BYTES = 1 << 16

Answer = Callable[[bytes], None]


class KeyConflict(ValueError):
    """A key that has another value already, or one too many."""


@dataclass
class KeyValues:
    """Values by key, and who waits for one that is not there yet."""

    values: dict[str, bytes] = field(default_factory=dict)
    waiting: dict[str, list[Answer]] = field(default_factory=dict)

    def put(self, key: str, value: bytes) -> None:
        """Give a key its value, and whoever waits for it. Raises KeyConflict."""
        if self.values.get(key, value) != value:
            raise KeyConflict(f"key {key[:80]!r} has a value already")
        if len(value) > MOST_VALUE_BYTES or len(self.values) >= MOST_KEYS:
            raise KeyConflict(f"key {key[:80]!r}: {len(value)} bytes beside {len(self.values)} other keys")
        self.values[key] = value
        for answer in self.waiting.pop(key, ()):
            answer(value)

    def ask(self, key: str, answer: Answer) -> None:
        """Answer now, or as soon as the key has a value."""
        if key in self.values:
            answer(self.values[key])
        else:
            self.waiting.setdefault(key, []).append(answer)

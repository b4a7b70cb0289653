"""Trying again, with jitter, what a far-away storage may do the next time.

"Full jitter": the wait before attempt n is uniform in [0, min(most_s, first_s * 2^n)], so that ranks that
failed together do not come back together (Brooker 2015, AWS Architecture Blog, "Exponential Backoff And
Jitter").
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from rsc.clock import Clock, SystemClock

Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """How often and how patiently. The defaults give up after about 30 s in the mean, a minute at most."""

    attempts: int = 8
    first_s: float = 0.25
    most_s: float = 16.0
    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.SystemRandom)

    def wait(self, failures: int) -> None:
        """Sleep after the given number of failures in a row (1 or more)."""
        self.clock.sleep(self.random.uniform(0, min(self.most_s, self.first_s * 2 ** (failures - 1))))

    def call(self, act: Callable[[], Result], *, is_passing: Callable[[Exception], bool]) -> Result:
        """The result of `act`, tried again while its error `is_passing` and attempts are left."""
        failures = 0
        while True:
            try:
                return act()
            except Exception as error:
                failures += 1
                if failures >= self.attempts or not is_passing(error):
                    raise
            self.wait(failures)

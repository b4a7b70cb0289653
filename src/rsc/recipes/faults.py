"""Faults by vocabulary: `rank=1,step=30,kind=sigkill` makes that rank fail at that step, once a run.

A drill is part of the product: `train.fail_at` is in the recipe's hash and in the run's events, so a
run that was sabotaged says so for ever. Several faults are separated by `;`. Here are the words;
train/faults.py makes them happen. No torch here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rsc.errors import ConfigError


class FaultKind(enum.StrEnum):
    SIGKILL = "sigkill"  # the process is gone between two instructions
    EXCEPTION = "exception"  # a bug raises
    HANG = "hang"  # the rank stops stepping and stays alive
    SLOW = "slow"  # a straggler: every later step takes 0.2 s longer
    NAN = "nan"  # this batch gives a loss that is not a number
    SPIKE = "spike"  # this batch gives a thousand times its loss
    OOM = "oom"  # an allocation fails
    DISK_FULL = "disk_full"  # the next checkpoint meets ENOSPC
    DATA = "data"  # the loader meets bytes that do not decode
    NODE = "node"  # every process of the node is gone
    SIGTERM = "sigterm"  # the scheduler asks the node to leave


@dataclass(frozen=True)
class Fault:
    rank: int
    step: int
    kind: FaultKind


def parse_fault(text: str) -> tuple[Fault, ...]:
    """Read `rank=1,step=30,kind=sigkill;...`; an empty text has no faults. Raises ConfigError."""
    return tuple(_parse_one(part) for part in text.split(";") if part.strip())


def _parse_one(text: str) -> Fault:
    pairs = dict(pair.partition("=")[::2] for pair in text.replace(" ", "").split(","))
    kinds = ", ".join(FaultKind)
    try:
        if set(pairs) != {"rank", "step", "kind"}:
            raise ValueError
        return Fault(rank=int(pairs["rank"]), step=int(pairs["step"]), kind=FaultKind(pairs["kind"]))
    except ValueError:
        raise ConfigError(
            f"fault {text!r} is not rank=R,step=S,kind=K with K one of: {kinds}",
            hint="for example rank=1,step=30,kind=sigkill",
        ) from None

"""A node that computes slowly: its jobs stand still for a share of each period, until this process ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rsc.cluster.dev.faults import jobs_of
from rsc.cluster.dev.processes import end

_PERIOD_S = 0.1


def main(folder: str, name: str, share: float) -> None:
    while Path(folder).exists():
        found = jobs_of(Path(folder), name)
        end(found, number=signal.SIGSTOP)
        time.sleep((1 - share) * _PERIOD_S)
        end(found, number=signal.SIGCONT)
        time.sleep(share * _PERIOD_S)

"""The figures of one simulated life, as a tree of numbers that JSON and confidence intervals take alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsc.plan.sim.core import Simulation
from rsc.plan.sim.scenario import DAY_S

Figures = dict[str, Any]

HOUR_S = 3600.0


def figures(life: Simulation) -> Figures:
    """Everything that is reported. Shares are of all GPU time; hours are GPU-hours."""
    ledger, capacity = life.ledger, life.scenario.gpus * life.scenario.horizon_s
    attempts = max(1, sum(ledger.states.values()))
    lost = {reason: seconds / HOUR_S for reason, seconds in sorted(ledger.lost.items())}
    whole = max(1e-9, sum(lost.values()))
    after_failures = sum(lost.get(reason, 0.0) for reason in ("failure", "false positive", "second order"))
    return {
        "utilisation": ledger.busy / capacity,
        "goodput": ledger.productive / capacity,
        "idle": ledger.idle / capacity,
        "down": ledger.down / capacity,
        "effective_time": ledger.productive / max(ledger.busy, 1e-9),
        "lost_gpu_hours": {
            **lost,
            "restart": ledger.restart / HOUR_S,
            "checkpoint writes": ledger.checkpoint / HOUR_S,
            "detection": ledger.detection / HOUR_S,
            "contention and power cap": ledger.slowed / HOUR_S,
        },
        "second_order_share": lost.get("second order", 0.0) / after_failures if after_failures else 0.0,
        "preemption_share": (lost.get("second order", 0.0) + lost.get("preemption", 0.0)) / whole,
        "attempt_states": {state: count / attempts for state, count in sorted(ledger.states.items())},
        "state_gpu_time": {
            state: seconds / max(ledger.busy, 1e-9) for state, seconds in sorted(ledger.state_time.items())
        },
        "sizes": {str(gpus): _of_size(life, gpus) for gpus in sorted(ledger.starts)},
        "faults": dict(sorted(ledger.causes.items())),
        "lemons_removed": ledger.lemons_removed,
        "energy_mwh": _energy_mwh(life),
        "jobs": len(life.jobs),
        "jobs_waiting_at_end": life.dispatcher.pending.count,
        "events": ledger.events,
        "unaccounted_gpu_s": max(abs(ledger.total - capacity), abs(ledger.busy - ledger.accounted)),
    }


def _of_size(life: Simulation, gpus: int) -> Figures:
    """ETTR counts all time from submission (with queue) or only attempts (without); jobs of 24 h and more."""
    ledger, attempts = life.ledger, life.attempts
    mine = np.asarray(life.jobs.gpus) == gpus
    waits = np.asarray(attempts.first_wait_s)[mine]
    submit, end = np.asarray(life.jobs.submit_s)[mine], np.asarray(attempts.end_s)[mine]
    productive, queued = np.asarray(attempts.productive_s)[mine], np.asarray(attempts.queued_s)[mine]
    wall = end - submit
    long = np.isfinite(wall) & (wall - queued >= DAY_S)
    started = waits[np.isfinite(waits)]
    failed, node_days = ledger.failures[gpus], ledger.node_time[gpus] / DAY_S
    nodes = max(1, gpus // life.scenario.cluster.gpus_per_node)
    return {
        "jobs": int(mine.sum()),
        "gpu_time_share": ledger.size_time[gpus] / max(ledger.busy, 1e-9),
        "wait_mean_s": float(started.mean()) if len(started) else None,
        "wait_median_s": float(np.median(started)) if len(started) else None,
        "wait_p90_s": float(np.quantile(started, 0.9)) if len(started) else None,
        "ettr": _ratio(productive[long].sum(), wall[long].sum()),
        "ettr_without_queue": _ratio(productive[long].sum(), (wall - queued)[long].sum()),
        "failures": failed,
        "mttf_h": 24 * node_days / nodes / failed if failed else None,
        "failures_per_1000_node_days": 1000 * failed / node_days if node_days else None,
        "attempts_ended_by_failure": failed / ledger.starts[gpus],
    }


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _energy_mwh(life: Simulation) -> float:
    ledger, energy = life.ledger, life.scenario.energy
    busy_w = min(energy.busy_w, energy.cap_w) if energy.cap_w else energy.busy_w
    joules = ledger.busy * busy_w + (ledger.idle + ledger.down) * energy.idle_w
    return joules * energy.pue / 3.6e9

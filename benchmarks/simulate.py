"""Speed and truth of `rsc simulate`.

    python benchmarks/simulate.py [--quick] [--json]

Speed: CPU seconds and peak memory of rsc-1 over growing times, so that linear cost shows. Truth: published
figures beside ours. `formula` is the paper's first-order form with the published inputs,
`exact` the renewal process (Daly 2006), `simulated` one job's life with the same inputs. Misses stay misses.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict, dataclass
from math import exp, expm1

from rsc.plan.sim.core import simulate
from rsc.plan.sim.outcome import figures
from rsc.plan.sim.scenario import DAY_S, Scenario, load_scenario


@dataclass(frozen=True)
class EttrCase:
    """One published ETTR (arXiv:2410.21680; the figures stand in docs/simulate.md)."""

    name: str
    nodes: int
    rate: float
    interval_min: float
    restart_min: float
    published: float


ETTR = (
    EttrCase("16k GPUs, checkpoints each 60 min", 2000, 0.0065, 60, 5, 0.70),
    EttrCase("16k GPUs, checkpoints each 5 min", 2000, 0.0065, 5, 5, 0.93),
    EttrCase("8k GPUs, checkpoints each 30 min", 1000, 0.0065, 30, 6, 0.90),
    EttrCase("100k GPUs at RSC-2's rate, 2 min", 12500, 0.00234, 2, 2, 0.90),
    EttrCase("100k GPUs at RSC-1's rate, 7 min", 12500, 0.0065, 7, 5, 0.50),
    EttrCase("100k GPUs at RSC-2's rate, 21 min", 12500, 0.00234, 21, 5, 0.50),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    truth = [ettr_row(case, failures=300 if options.quick else 20_000) for case in ETTR]
    speed = [speed_row(days) for days in ((1,) if options.quick else (30, 120, 335))]
    if options.json:
        print(json.dumps({"truth": truth, "speed": speed}, indent=2))
        return
    for rows in (truth, speed):
        for row in rows:
            print("  ".join(f"{key}={value}" for key, value in row.items()))


def ettr_row(case: EttrCase, *, failures: int) -> dict[str, object]:
    """One node that fails at the rate of all: without a queue the number of nodes does not matter."""
    rate = case.nodes * case.rate
    scenario = Scenario.model_validate(
        {
            "days": min(3650, failures / rate),
            "cluster": {"nodes": 1, "gpus_per_node": 8},
            "workload": {"single_job_gpus": 8},
            "scheduler": {"interval_s": 0, "time_limit_s": 0, "preemption": False},
            "failures": {
                "rate_per_node_day": rate,
                "causes": [{"name": "any", "share": 1, "permanent": 0, "coverage": 1}],
            },
            "health": {"interval_s": 1e-6, "lemon_detection": False},
            "repair": {"transient_s": 0, "test_s": 0, "swap_s": 0},
            "checkpoint": {"interval_s": case.interval_min * 60, "restart_s": case.restart_min * 60},
        }
    )
    ours = figures(simulate(scenario, seed=0))["goodput"]
    formula = 1 - rate / DAY_S * 60 * (case.restart_min + case.interval_min / 2)
    per_s, tau_s, restart_s = rate / DAY_S, case.interval_min * 60, case.restart_min * 60
    exact = per_s * tau_s * exp(-per_s * restart_s) / expm1(per_s * tau_s)
    verdict = "hit" if abs(ours - case.published) <= 0.02 else "miss"
    return {
        **asdict(case),
        "formula": round(formula, 3),
        "exact": round(exact, 3),
        "simulated": round(ours, 3),
        "verdict": verdict,
    }


def speed_row(days: int) -> dict[str, object]:
    scenario, _ = load_scenario("rsc-1", overrides=(f"days={days}",))
    before = time.process_time()
    life = simulate(scenario, seed=0)
    cpu_s = time.process_time() - before
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    events = life.ledger.events
    return {
        "scenario": "rsc-1",
        "days": days,
        "jobs": len(life.jobs),
        "events": events,
        "cpu_s": round(cpu_s, 1),
        "us_per_event": round(1e6 * cpu_s / events, 1),
        "peak_mib": round(peak_mib),
        "unaccounted_gpu_s": figures(life)["unaccounted_gpu_s"],
    }


if __name__ == "__main__":
    main()

"""The simulator against formulas that are exact, and against conservation of GPU time."""

from __future__ import annotations

from math import exp, factorial, sqrt
from typing import Any

import numpy as np
import pytest

from rsc.plan.sim.core import Simulation, simulate
from rsc.plan.sim.faults import draw
from rsc.plan.sim.outcome import figures
from rsc.plan.sim.progress import Cadence, split, wall_s
from rsc.plan.sim.scenario import DAY_S, Scenario, load_scenario, scenario_names

HOUR_S = 3600.0
# Tolerances are two to three standard errors of runs that take a second; benchmarks/simulate.py runs longer.
NO_POLICY = {
    "interval_s": 0,
    "backfill": False,
    "preemption": False,
    "time_limit_s": 0,
    "fair_share_weight_s": 0,
}


def queue(
    *, servers: int, load: float, days: float, policy: dict[str, Any] | None = None, **job: Any
) -> Scenario:
    """Jobs of one GPU and one hour in the mean on servers of one GPU."""
    values = {
        "days": days,
        "cluster": {"nodes": servers, "gpus_per_node": 1},
        "workload": {
            "jobs_per_day": load * servers * 24,
            "projects": 1,
            "classes": [{"gpus": 1, "job_share": 1.0, "mean_h": 1.0, **job}],
        },
        "scheduler": NO_POLICY | (policy or {}),
        "checkpoint": {"restart_s": 0, "interval_s": 0},
    }
    return Scenario.model_validate(values)


def mean_wait_s(life: Simulation) -> float:
    waits = np.asarray(life.attempts.first_wait_s)
    return float(waits[np.isfinite(waits)].mean())


def erlang_c(servers: int, load: float) -> float:
    offered = servers * load
    top = offered**servers / factorial(servers) / (1 - load)
    return top / (sum(offered**k / factorial(k) for k in range(servers)) + top)


@pytest.mark.parametrize("servers", [1, 4])
def test_waits_of_m_m_c_are_erlangs(servers: int) -> None:
    load = 0.6
    life = simulate(queue(servers=servers, load=load, days=1200 / servers, law="exponential"), seed=1)
    expected = erlang_c(servers, load) / (servers * (1 - load)) * HOUR_S
    assert mean_wait_s(life) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_waits_of_m_g_1_follow_pollaczek_and_khinchine(sigma: float) -> None:
    load = 0.6
    life = simulate(queue(servers=1, load=load, days=1000, sigma=sigma), seed=2)
    second_moment = exp(sigma**2)  # of a lognormal with mean 1
    expected = load * second_moment / (2 * (1 - load)) * HOUR_S
    assert mean_wait_s(life) == pytest.approx(expected, rel=0.1)


def test_time_in_a_preemptive_priority_queue() -> None:
    """M/M/1 with resume: T1 = 1/(mu - l1); T2 = 1/(mu (1 - r1) (1 - r1 - r2)) (Kleinrock 1976)."""
    policy = {"preemption": True, "preempt_after_s": 0, "qos_weight_s": 1e9}
    job = {"law": "exponential", "high_share": 0.5, "low_share": 0.0}
    life = simulate(queue(servers=1, load=0.6, days=1000, policy=policy, **job), seed=3)
    times = np.asarray(life.attempts.end_s) - np.asarray(life.jobs.submit_s)
    is_high, done = np.asarray(life.jobs.qos) == 2, np.isfinite(times)
    assert times[is_high & done].mean() == pytest.approx(HOUR_S / 0.7, rel=0.1)
    assert times[~is_high & done].mean() == pytest.approx(HOUR_S / (0.7 * 0.4), rel=0.1)


def one_job(*, nodes: int, rate: float, days: float, **checkpoint: Any) -> Scenario:
    """One job on the whole cluster; a fault is seen and mended at once."""
    values = {
        "days": days,
        "cluster": {"nodes": nodes, "gpus_per_node": 8},
        "workload": {"single_job_gpus": nodes * 8},
        "scheduler": NO_POLICY,
        "failures": {
            "rate_per_node_day": rate,
            "causes": [{"name": "any", "share": 1, "permanent": 0, "coverage": 1}],
        },
        "health": {"interval_s": 1e-6, "lemon_detection": False},
        "repair": {"transient_s": 0, "test_s": 0, "swap_s": 0},
        "checkpoint": checkpoint,
    }
    return Scenario.model_validate(values)


def renewal_ettr(rate_s: float, interval_s: float, write_s: float, restart_s: float) -> float:
    """Daly 2006, eq. 13: a segment takes exp(rate R) (exp(rate (tau + w)) - 1) / rate in the mean; R is
    paid after each failure only, so the share of a segment without failure is exact with R in each try."""
    per_segment = (exp(rate_s * (interval_s + write_s)) - 1) / rate_s * exp(rate_s * restart_s)
    return interval_s / per_segment


@pytest.mark.parametrize("interval_s", [900.0, 3600.0, 14400.0])
@pytest.mark.parametrize("blocking", [True, False])
def test_ettr_of_a_renewal_process(interval_s: float, blocking: bool) -> None:
    nodes, rate, write = 5, 1.0, 120.0 if blocking else 0.0
    scenario = one_job(nodes=nodes, rate=rate, days=800, interval_s=interval_s, write_s=write,
                       blocking=blocking, restart_s=300)  # fmt: skip
    life = simulate(scenario, seed=4)
    expected = renewal_ettr(nodes * rate / DAY_S, interval_s, write, 300)
    assert figures(life)["goodput"] == pytest.approx(expected, abs=0.025)


def test_the_best_interval_is_youngs() -> None:
    nodes, rate, write = 2, 1.0, 60.0
    best = sqrt(2 * write / (nodes * rate / DAY_S))

    def goodput(interval_s: float) -> float:
        scenario = one_job(nodes=nodes, rate=rate, days=800, interval_s=interval_s, write_s=write,
                           blocking=True, restart_s=60)  # fmt: skip
        return float(figures(simulate(scenario, seed=5))["goodput"])

    at_best = goodput(best)
    assert at_best > goodput(best / 3)
    assert at_best > goodput(best * 3)


@pytest.mark.parametrize("nodes", [64, 256])
def test_mean_time_to_failure_is_one_over_nodes_times_rate(nodes: int) -> None:
    rate = 0.0065
    scenario = one_job(nodes=nodes, rate=rate, days=1000 / (nodes * rate), interval_s=0, restart_s=0)
    size = figures(simulate(scenario, seed=6))["sizes"][str(nodes * 8)]
    assert size["mttf_h"] == pytest.approx(24 / (nodes * rate), rel=0.08)  # 1000 failures: 3 sigma = 9 %


@pytest.mark.parametrize("name", scenario_names())
def test_every_gpu_second_is_accounted_for(name: str) -> None:
    scenario, _ = load_scenario(name, overrides=("days=0.3",))
    assert figures(simulate(scenario, seed=7))["unaccounted_gpu_s"] < 1


HOSTILE = {
    "lemons": ("failures.lemon_share=0.5", "failures.lemon_factor=20", "failures.infant_factor=3"),
    "domains": ("failures.rack_rate_per_day=0.5", "failures.pod_rate_per_day=0.2", "repair.spares=1"),
    "false positives": ("health.false_positives_per_node_day=3",),
    "blind": ("health.checks=off", "failures.rate_per_node_day=1"),
    "no backfill": ("scheduler.backfill=off", "scheduler.interval_s=0"),
    "full store": ("storage.bytes_per_s=1e9", "checkpoint.bytes_per_gpu=1e9", "checkpoint.blocking=true"),
    "bad network": ("fabric.adaptive_routing=off", "cluster.nodes_per_pod=1", "energy.cap_w=400"),
    "short limit": ("scheduler.time_limit_s=7200", "scheduler.preempt_after_s=0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_conservation_holds_when_everything_goes_wrong(case: str) -> None:
    overrides = ("days=30", "failures.rate_per_node_day=0.3", *HOSTILE[case])
    scenario, _ = load_scenario("laptop-lab", overrides=overrides)
    life = simulate(scenario, seed=8)
    result = figures(life)
    assert result["unaccounted_gpu_s"] < 0.01
    done = np.asarray(life.attempts.productive_s)
    assert (done <= np.asarray(life.jobs.work_s) * (1 + 1e-9) + 1e-6).all()


def test_parts_of_an_attempt_add_up() -> None:
    random = np.random.default_rng(9)
    for restart, interval, write, elapsed in random.random((500, 4)) * [100, 1000, 100, 9000]:
        parts = split(elapsed, Cadence(restart, interval, write, 0.0))
        assert parts.restart_s + parts.write_s + parts.work_s == pytest.approx(elapsed)
        assert parts.saved_s <= parts.work_s + 1e-9
        lasts = wall_s(elapsed, Cadence(restart, interval, write, 0.0))
        assert split(lasts, Cadence(restart, interval, write, 0.0)).work_s == pytest.approx(elapsed)


def test_a_seed_gives_the_same_life_and_variants_meet_the_same_faults() -> None:
    scenario, _ = load_scenario("laptop-lab", overrides=("days=20",))
    assert figures(simulate(scenario, seed=1)) == figures(simulate(scenario, seed=1))
    assert figures(simulate(scenario, seed=1)) != figures(simulate(scenario, seed=2))
    variant, _ = load_scenario("laptop-lab", overrides=("days=20", "checkpoint.interval_s=60"))
    assert draw(scenario, seed=1) == draw(variant, seed=1)

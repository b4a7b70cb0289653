"""Jobs of a simulation as columns: submission, size, work, limit, QOS, account, ending."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, inf

import numpy as np
from numpy.typing import NDArray

from rsc.errors import ConfigError
from rsc.plan.sim.scenario import JobClass, Scenario, Workload

MOST_JOBS = 50_000_000
ENDINGS = ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY")
LOW, NORMAL, HIGH = 0, 1, 2

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Jobs:
    """One entry for each job, in the order they are submitted. Lists, because events read single entries."""

    submit_s: list[float] = field(default_factory=list)
    gpus: list[int] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)
    limit_s: list[float] = field(default_factory=list)
    """What the scheduler expects at most; it plans backfill with that."""
    qos: list[int] = field(default_factory=list)
    project: list[int] = field(default_factory=list)
    ending: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.submit_s)


def generate(scenario: Scenario, *, seed: int) -> Jobs:
    """Poisson arrivals with sizes, run times and endings drawn from the classes.

    Columns come from streams of their own, so that a changed run time changes no arrival.
    """
    work = scenario.workload
    streams = [np.random.default_rng([seed, 1, number]) for number in range(6)]
    mean = work.jobs_per_day * scenario.days
    if mean > MOST_JOBS:
        raise ConfigError(f"{mean:,.0f} jobs; at most {MOST_JOBS:,} are simulated at once", hint="fewer days")
    count = int(streams[0].poisson(mean)) if work.classes else 0
    submit = np.sort(streams[0].random(count)) * scenario.horizon_s
    chosen = _choose(streams[1], [each.job_share for each in work.classes], count)
    gpus, run = np.ones(count, int), np.zeros(count)
    qos, draws, levels = np.full(count, NORMAL), streams[2].random(count), streams[3].random(count)
    normals = streams[2].standard_normal(count)
    for index, each in enumerate(work.classes):
        mask = chosen == index
        gpus[mask] = each.gpus
        run[mask] = _run_times(each, mean_s(each, work), uniform=draws[mask], normal=normals[mask])
        qos[mask & (levels < each.low_share)] = LOW
        qos[mask & (levels >= 1 - each.high_share)] = HIGH
    ranks = 1 / np.arange(1, work.projects + 1)
    project = _choose(streams[4], list(ranks / ranks.sum()), count)
    ends = work.endings
    own = [
        1 - ends.failed - ends.cancelled - ends.out_of_memory,
        ends.failed,
        ends.cancelled,
        ends.out_of_memory,
    ]
    ending = _choose(streams[5], own, count)
    jobs = Jobs(
        submit.tolist(), gpus.tolist(), run.tolist(), limits(run, scenario).tolist(),
        qos.tolist(), project.tolist(), ending.tolist(),
    )  # fmt: skip
    return with_single_job(jobs, scenario)


def mean_s(each: JobClass, work: Workload) -> float:
    """Mean run time of a class; a share of the offered GPU time is turned into one."""
    if each.mean_h is not None:
        return each.mean_h * 3600
    assert each.gpu_time_share is not None, "check() refuses it"
    assert work.gpu_hours_per_job is not None, "check() refuses it"
    return each.gpu_time_share * work.gpu_hours_per_job * 3600 / (max(each.job_share, 1e-12) * each.gpus)


def limits(run_s: Column, scenario: Scenario) -> Column:
    """Time limits that users ask for, below the partition's."""
    asked = np.maximum(600.0, (run_s + scenario.checkpoint.restart_s) * scenario.workload.limit_factor)
    return np.minimum(asked, scenario.scheduler.time_limit_s or inf)


def with_single_job(jobs: Jobs, scenario: Scenario) -> Jobs:
    """The same with the one job that outlasts the simulation in front, where the scenario has one."""
    gpus = scenario.workload.single_job_gpus
    if not gpus:
        return jobs
    forever = scenario.horizon_s * 10
    return Jobs(
        [0.0, *jobs.submit_s],
        [gpus, *jobs.gpus],
        [forever, *jobs.work_s],
        [scenario.scheduler.time_limit_s or forever, *jobs.limit_s],
        [HIGH, *jobs.qos],
        [0, *jobs.project],
        [0, *jobs.ending],
    )


def _run_times(each: JobClass, mean: float, *, uniform: Column, normal: Column) -> Column:
    if each.law == "exponential":
        return -mean * np.log1p(-uniform)
    return mean * np.exp(each.sigma * normal - each.sigma**2 / 2)


def _choose(stream: np.random.Generator, shares: list[float], count: int) -> NDArray[np.int64]:
    edges = np.cumsum(shares)[:-1]
    return np.searchsorted(edges, stream.random(count), side="right")


def lognormal(mean: float, sigma: float, normal: float) -> float:
    """A draw with that mean from a standard normal one."""
    return mean * exp(sigma * normal - sigma**2 / 2)

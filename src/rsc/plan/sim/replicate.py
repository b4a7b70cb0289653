"""The same scenario with several seeds, on several cores, and what the runs agree on.

A run depends on its scenario and seed alone, so any number of cores gives the same figures. With a folder,
each finished run is a file there, and a sweep that was ended goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rsc.durable import replace_file
from rsc.layers import Resolved, parse_as
from rsc.plan.sim.core import simulate
from rsc.plan.sim.outcome import Figures, figures
from rsc.plan.sim.scenario import Scenario
from rsc.plan.sim.traces import jobs_of

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom; above them 2.2 is no less than it is."""


@dataclass(frozen=True, eq=False)
class SimulatedRun:
    """One run."""

    values: Resolved
    seed: int

    @property
    def file_name(self) -> str:
        return f"{self.values.digest[:16]}-{self.seed}.json"


def run_all(
    tasks: Sequence[SimulatedRun], *, cores: int, folder: Path | None, told: Callable[[int, int], None]
) -> dict[SimulatedRun, Figures]:
    """Figures of every task; `told(done, of)` after each. With `folder`, what lies there is not run again."""
    done = {task: found for task in tasks if folder and (found := _stored(folder / task.file_name))}
    left = [task for task in tasks if task not in done]
    for task, result in _results(left, cores=cores):
        done[task] = result
        if folder:
            replace_file(folder / task.file_name, json.dumps(result).encode(), mode=0o644)
        told(len(done), len(tasks))
    return done


def _results(tasks: Sequence[SimulatedRun], *, cores: int) -> Iterable[tuple[SimulatedRun, Figures]]:
    if cores == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, run_one(task)
        return
    with ProcessPoolExecutor(min(cores, len(tasks)), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_one, task): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def run_one(task: SimulatedRun) -> Figures:
    scenario = parse_as(Scenario, task.values)
    return figures(simulate(scenario, seed=task.seed, jobs=jobs_of(scenario)))


def _stored(path: Path) -> Figures | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "goodput" in found else None


def combine(runs: Sequence[Figures]) -> Figures:
    """Each number as {"mean", "low", "high"}: the 95 % interval of the mean over seeds; null for one run.

    A figure that some runs do not have (no failure of that size) is taken over those that have it.
    """
    keys = sorted({key for run in runs for key in run}, key=_as_number)
    merged: dict[str, Any] = {}
    for key in keys:
        values = [run[key] for run in runs if run.get(key) is not None]
        if values and isinstance(values[0], dict):
            merged[key] = combine(values)
        else:
            merged[key] = interval([float(value) for value in values])
    return merged


def interval(values: Sequence[float]) -> Figures:
    if not values:
        return {"mean": None, "low": None, "high": None}
    mean = fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    degrees = len(values) - 1
    half = (T_95[degrees - 1] if degrees <= len(T_95) else 2.2) * stdev(values) / sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def difference(base: Sequence[Figures], other: Sequence[Figures], key: str) -> Figures:
    """Of one figure, seed by seed: both variants met the same jobs and faults, so chance cancels."""
    return interval([float(b[key]) - float(a[key]) for a, b in zip(base, other, strict=True)])


def _as_number(key: str) -> tuple[float, str]:
    return (float(key), "") if key.isdigit() else (-1.0, key)

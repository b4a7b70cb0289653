"""How fast the planner scores layouts, and its errors on published runs beside half of the peak.

    python benchmarks/plan.py [--json] [--quick] [--runs N] [--published ROWS.json]

`score` is memory and time of layouts that are there already, `search` is everything: enumerating, memory,
time of those that fit, the best. Rates are a CPU second, on one core. With `--published` each group has
its mean absolute error in percent, of the shipped factors (`rsc`) and of the constant (`half_of_peak`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from harness import Options, Report, main

from rsc.plan.answer import machine_of
from rsc.plan.fit import load_calibration
from rsc.plan.machines import cluster_of
from rsc.plan.memory import memory
from rsc.plan.published import read_rows
from rsc.plan.question import question
from rsc.plan.score import score
from rsc.plan.search import Limits, layouts, search
from rsc.plan.step_time import step_time

WORLD, BATCH = 4096, 4096
MODELS = {"dense_1t": "dense-1t", "moe_1t": "moe-1t"}


def measure(options: Options) -> Report:
    report = Report(notes=["1T parameters on 4,096 H100, 4,096 sequences a step, every layout"])
    factors = load_calibration().factors
    machine = machine_of(cluster_of("H100-SXM-80GB", count=WORLD), bits=16)
    for case, name in MODELS.items():
        shape = question(name).shape
        look = lambda shape=shape: search(  # noqa: E731
            shape, machine, factors, world=WORLD, batch=BATCH, limits=Limits()
        )
        count = look().num_scored
        found = [_cpu(look) for _ in range(options.runs)]
        report.add(case, metric="search_cpu_s", subject="rsc", values=found)
        report.add(case, metric="layouts", subject="rsc", values=[count])
        report.add(case, metric="search_per_cpu_s", subject="rsc", values=[count / each for each in found])
        plan = next(layouts(shape, world=WORLD, batch=BATCH, limits=Limits()))
        judge = lambda shape=shape, plan=plan: (  # noqa: E731
            memory(shape, plan),
            step_time(shape, plan, machine, factors),
        )
        rates = [len(plan.dp) / _cpu(judge) for _ in range(options.runs)]
        report.add(case, metric="score_per_cpu_s", subject="rsc", values=rates)
    _errors(report, options.arguments.published)
    return report


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _errors(report: Report, published: Path | None) -> None:
    if published is None:
        report.skip("published", reason="no file of rows was given (--published)")
        return
    for group in score(read_rows(published), load_calibration())["groups"]:
        for subject, name in (("rsc", "mape"), ("half_of_peak", "baseline_mape")):
            if group[name] is not None:
                report.add(str(group["group"]), metric="mape_percent", subject=subject, values=[group[name]])


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--published", type=Path, help="JSON rows of published runs (docs/plan.md)")


if __name__ == "__main__":
    main(__doc__.splitlines()[0], measure, default_runs=3, quick_runs=1, add_arguments=_arguments)

"""Jobs of your own: a CSV with a header, in our columns or those of a published trace or of sacct.

rsc      submit_s, gpus, run_s [, limit_s, qos, project, state]
philly   submitted_time, num_gpus, runtime, status        (flattened, as its toolkit writes it)
helios   submit_time, gpu_num, duration, state, user
alibaba  submit_time, num_gpu, duration [, user]          (v2020, for simulators; a part of a GPU is one)
sacct    Submit|AllocTRES or ReqTRES|ElapsedRaw|State|Account, as `sacct -X -P -o ...` prints it

Times are seconds or ISO dates; the first submission becomes 0. A line that cannot be right is refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from rsc.errors import DataError
from rsc.layers import nearest
from rsc.plan.sim.scenario import Scenario
from rsc.plan.sim.workload import ENDINGS, HIGH, LOW, MOST_JOBS, NORMAL, Jobs, limits

MOST_RUN_S = 400 * 86_400.0
MOST_SPAN_S = 20 * 366 * 86_400.0

COLUMNS: Mapping[str, tuple[str, str, str, str, str]] = {
    "rsc": ("submit_s", "gpus", "run_s", "state", "project"),
    "philly": ("submitted_time", "num_gpus", "runtime", "status", "user"),
    "helios": ("submit_time", "gpu_num", "duration", "state", "user"),
    "alibaba": ("submit_time", "num_gpu", "duration", "status", "user"),
    "sacct": ("Submit", "AllocTRES", "ElapsedRaw", "State", "Account"),
}
QOS = {"low": LOW, "": NORMAL, "normal": NORMAL, "high": HIGH}
_FAILED = {
    "failed": 1,
    "fail": 1,
    "node_fail": 1,
    "killed": 2,
    "cancelled": 2,
    "canceled": 2,
    "out_of_memory": 3,
}
_TRES_GPUS = re.compile(r"(?:^|,)gres/gpu=(\d+)")


class TraceRow(NamedTuple):
    submit_s: float
    gpus: int
    run_s: float
    ending: int
    project: str
    qos: int


def jobs_of(scenario: Scenario) -> Jobs | None:
    """Jobs of the scenario's trace; None where it has none. Raises DataError with the line."""
    work = scenario.workload
    if not work.trace:
        return None
    path = Path(work.trace)
    try:
        with path.open(newline="", encoding="utf-8", errors="strict") as file:
            rows = list(_rows(file, path, layout=work.trace_layout))
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", hint="export the trace as CSV in UTF-8") from None
    if not rows:
        raise DataError(f"{path} has no job that used a GPU", hint="a header and a line for each job")
    return _columns(rows, path, scenario)


def _columns(rows: list[TraceRow], path: Path, scenario: Scenario) -> Jobs:
    largest, per_node = max(row.gpus for row in rows), scenario.cluster.gpus_per_node
    if largest > scenario.gpus:
        raise DataError(
            f"{path}: a job of {largest:,} GPUs on a cluster of {scenario.gpus:,}",
            hint=f"set cluster.nodes={-(-largest // per_node)} or more",
        )
    rows.sort(key=lambda row: row.submit_s)
    first = rows[0].submit_s
    if rows[-1].submit_s - first > MOST_SPAN_S:
        raise DataError(
            f"{path}: submissions span {(rows[-1].submit_s - first) / 86_400:,.0f} days",
            hint="times are in seconds; are these milliseconds?",
        )
    names = {name: number for number, name in enumerate(sorted({row.project for row in rows}))}
    run = np.asarray([row.run_s for row in rows])
    return Jobs(
        [row.submit_s - first for row in rows],
        [_whole_nodes(row.gpus, per_node) for row in rows],
        run.tolist(),
        limits(run, scenario).tolist(),
        [row.qos for row in rows],
        [names[row.project] % scenario.workload.projects for row in rows],
        [row.ending for row in rows],
    )


def _whole_nodes(gpus: int, per_node: int) -> int:
    """A job that needs more than a node gets whole ones, as a gang does."""
    return gpus if gpus <= per_node else -(-gpus // per_node) * per_node


def _rows(file: TextIO, path: Path, *, layout: str) -> Iterator[TraceRow]:
    reader = csv.DictReader(file, delimiter="|" if layout == "sacct" else ",")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        submit, gpus, run, state, project = _header(header, path, layout)
        for number, line in enumerate(reader, start=2):
            where = f"{path} line {number}"
            if number > MOST_JOBS:
                raise DataError(f"{path} has more than {MOST_JOBS:,} lines")
            count = _gpus(line.get(gpus), where, gpus)
            if not count:
                continue  # jobs without a GPU are no part of the question
            yield TraceRow(
                _time(line.get(submit), where, submit),
                count,
                _run_time(line.get(run), where, run),
                _ending(line.get(state) or ""),
                line.get(project) or "",
                _qos(line.get("qos") or "", where),
            )
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}") from None


def _header(header: list[str], path: Path, layout: str) -> tuple[str, str, str, str, str]:
    submit, gpus, run, state, project = COLUMNS[layout]
    if layout == "sacct" and gpus not in header:
        gpus = "ReqTRES"
    for name in (submit, gpus, run):
        if name not in header:
            hint = nearest(name, header, what="docs/simulate.md") if header else "the file is empty"
            raise DataError(f"{path} has no column {name!r}, which layout {layout} needs", hint=hint)
    return submit, gpus, run, state, project


def _number(text: str | None, where: str, column: str) -> float:
    try:
        value = float((text or "").strip())
    except ValueError:
        raise DataError(f"{where}: {column} {text!r} is not a number") from None
    if not isfinite(value):
        raise DataError(f"{where}: {column} {text!r} is not a number")
    return value


def _gpus(text: str | None, where: str, column: str) -> int:
    if column.endswith("TRES"):
        found = _TRES_GPUS.search(text or "")
        return int(found[1]) if found else 0
    value = _number(text, where, column)
    if value < 0 or value > 1e7:
        raise DataError(f"{where}: {column} {text!r}", hint="a job uses 0 to 10,000,000 GPUs")
    if value != int(value) and value > 1:
        raise DataError(f"{where}: {column} {text!r} is no whole number of GPUs")
    return int(-(-value // 1))


def _time(text: str | None, where: str, column: str) -> float:
    word = (text or "").strip()
    if not word or word in ("Unknown", "None"):
        raise DataError(f"{where}: {column} is missing", hint="leave out jobs that were never submitted")
    if re.match(r"\d{4}-\d\d-\d\d", word):
        try:
            moment = datetime.fromisoformat(word)
        except ValueError:
            raise DataError(f"{where}: {column} {text!r} is no date") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    value = _number(word, where, column)
    if value < 0:
        raise DataError(f"{where}: {column} {word} is negative")
    return value


def _run_time(text: str | None, where: str, column: str) -> float:
    value = _number(text, where, column)
    if value < 0:
        raise DataError(f"{where}: {column} {text} is negative", hint="did the job end before it started?")
    if value > MOST_RUN_S:
        raise DataError(
            f"{where}: {column} {text} s is more than {MOST_RUN_S / 86_400:.0f} days",
            hint="run times are in seconds; are these milliseconds?",
        )
    return value


def _ending(state: str) -> int:
    """sacct writes CANCELLED by 1000. What is not known to have failed counts as completed."""
    return _FAILED.get(state.strip().lower().partition(" ")[0], ENDINGS.index("COMPLETED"))


def _qos(name: str, where: str) -> int:
    if name.strip().lower() not in QOS:
        raise DataError(f"{where}: qos {name!r}", hint="low, normal or high")
    return QOS[name.strip().lower()]

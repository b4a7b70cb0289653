"""Runs as records: list, show, compare, remove. No torch: what `rsc runs ls show compare rm` print."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsc.api.record import Record, entry, html_table
from rsc.clock import SystemClock
from rsc.cluster.slurm.commands import InstalledSlurm
from rsc.cluster.slurm.jobs import SlurmJob
from rsc.config import Workspace
from rsc.control.slurm_states import jobs_of
from rsc.control.submission import live_job
from rsc.errors import ConfigError, RscError
from rsc.events import read_lines
from rsc.layers import resolve
from rsc.recipes.recipe import recipe_of
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle.erase import MARK
from rsc.runs.folder import RunFolder, RunState, find_run, list_runs
from rsc.runs.status import present
from rsc.runs.time_ledger import ledger
from rsc.untrusted import UntrustedFolder

_FAILURES = ("failure", "gave_up", "bad_batch", "straggler", "checkpoint_failed", "checkpoint_damaged")


@dataclass(frozen=True)
class ListedRun(Record):
    """A line of `rsc runs ls`: the run's record, and where it is while it is driven or in a queue."""

    id: str
    recipe: str
    created: str
    state: str
    steps: int
    step: int
    loss: float | None
    restarts: int
    resumed_at: int
    reason: str
    lineage: dict[str, Any]
    path: str
    doing: str | None
    """One sentence while it is driven."""
    job: str | None
    """Number of its newest job while Slurm knows it; `state` and `reason` are then as Slurm spells them."""
    nodes: str | None
    """Of that job."""

    def metrics(self, *, rank: int = 0) -> dict[str, NDArray[np.float64]]:
        """What a rank measured, by name: float64 [lines], in the order of `step`. Of a step that was done
        twice the later one; NaN where a line has no such figure."""
        return metrics_of(RunFolder(Path(self.path)), rank=rank)

    def _repr_html_(self) -> str:
        return html_table(f"run {self.id}", self._rows())

    def _rows(self) -> list[tuple[str, Any]]:
        data = self.lineage.get("data", {})
        return [
            ("state", f"{self.state} {self.doing or self.reason}".strip()),
            ("step", f"{self.step} of {self.steps}"),
            ("loss", "-" if self.loss is None else f"{self.loss:.4f}"),
            ("data", f"{data.get('name')} version {data.get('version')}"),
        ]


@dataclass(frozen=True)
class RunDetails(ListedRun):
    """One run: state, lineage, failures, lost work."""

    time: dict[str, Any]
    """Where its time went (rsc/runs/time_ledger.py)."""
    failures_seen: list[dict[str, Any]]
    marks: list[str]
    """What an erasure of data says about the model, in sentences."""
    prediction: dict[str, Any] | None = None
    """What the plan expected before the start; None where no prediction was kept."""
    step_s: float | None = None
    """Median of the steps that were done."""

    def to_json(self) -> dict[str, Any]:
        record = super().to_json()
        return {**record, **record.pop("time")}

    def _rows(self) -> list[tuple[str, Any]]:
        return [*super()._rows(), ("restarts", self.restarts), *(("marked", mark) for mark in self.marks)]


@dataclass(frozen=True)
class Comparison(Record):
    """Runs beside each other."""

    runs: list[str]
    settings: dict[str, list[Any]]
    """Those that differ, by dotted key, in the order of `runs`; None where a run has no such setting."""
    figures: dict[str, list[Any]]
    common_steps: int
    """Steps that all of them have done."""
    equal_steps: int
    """The first steps in which all losses are equal, bit for bit."""

    def _repr_html_(self) -> str:
        rows = [(name, *values) for name, values in {**self.figures, **self.settings}.items()]
        return html_table("runs", rows, header=("", *self.runs))


@dataclass(frozen=True)
class RemovedRun(Record):
    """A run whose folder is gone. What it was trained on stays in the log."""

    run: str
    freed_bytes: int


def runs() -> list[ListedRun]:
    """Every run of the workspace whose record can be read, oldest first."""
    found = list_runs(Workspace.from_environment().runs)
    jobs = _jobs(found)
    return [ListedRun(**_listed(folder, job=jobs.get(folder.id))) for folder in found]


def run(name: str) -> RunDetails:
    """A run by its id, a unique part of it, or `last`."""
    return run_at(find_run(Workspace.from_environment().runs, name))


def run_at(folder: RunFolder) -> RunDetails:
    events = folder.told()
    lines = list(folder.metrics())
    account = ledger(events, metrics=lines, now=SystemClock().now())
    return RunDetails(
        **_listed(folder, job=_jobs([folder]).get(folder.id)),
        time=account.to_json(),
        failures_seen=[event for event in events if event["kind"] in _FAILURES],
        marks=marks_of(folder),
        prediction=folder.prediction(),
        step_s=float(np.median([line["step_s"] for line in lines])) if lines else None,
    )


def marks_of(folder: RunFolder) -> list[str]:
    """What erasures say about a run, in sentences; those of its data and of the runs before it."""
    told = []
    for mark in read_lines(folder.path / MARK):
        what = f"{mark.get('data')} version {mark.get('version')}"
        if mark.get("kind") == "data_erased":
            told.append(f"trained on {what}, from which a person's records were erased since")
        elif mark.get("kind") == "data_not_searched":
            told.append(f"trained on {what}, which could not be searched for a person whose data was erased")
    return list(dict.fromkeys(told))


def metrics_of(folder: RunFolder, *, rank: int = 0) -> dict[str, NDArray[np.float64]]:
    by_step = {line["step"]: line for line in folder.metrics(rank=rank)}
    lines = [by_step[step] for step in sorted(by_step)]
    names = dict.fromkeys(name for line in lines for name, value in line.items() if _is_figure(value))
    columns = {name: np.array([_figure(line.get(name)) for line in lines], np.float64) for name in names}
    return columns or {"step": np.empty(0), "loss": np.empty(0)}


def compare(*names: str) -> Comparison:
    """Settings that differ, results, and how far the losses are equal. Raises ConfigError below two runs."""
    found = [find_run(Workspace.from_environment().runs, name) for name in names]
    if len(found) < 2:
        raise ConfigError(f"{len(found)} run to compare", hint="give two or more: rsc runs compare A B")
    settings = [_settings(folder) for folder in found]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = [(key, [each.get(key) for each in settings]) for key in keys]
    losses = [{line["step"]: line["loss"] for line in folder.metrics()} for folder in found]
    common = sorted(set.intersection(*(set(each) for each in losses)))
    return Comparison(
        runs=[folder.id for folder in found],
        settings={key: values for key, values in rows if len({repr(value) for value in values}) > 1},
        figures=_figures(found),
        common_steps=len(common),
        equal_steps=_num_equal(common, losses),
    )


@entry
def remove_run(name: str) -> RemovedRun:
    """Remove the folder of a run, with its checkpoints and the exports in it; the log says so.

    Raises ConfigError for one that is being trained, waits in a queue, or that another unfinished run starts
    from.
    """
    house = Custody.open()
    folder = find_run(house.workspace.runs, name)
    _require_no_job(folder)
    with folder.locked():
        for other in list_runs(house.workspace.runs):
            if other.id != folder.id and _starts_from(other, folder):
                raise ConfigError(
                    f"run {other.id} starts from {folder.id} and is not finished",
                    hint=f"finish or remove {other.id} first",
                )
        freed = UntrustedFolder(folder.path).size_bytes()
        house.audit.append("run_removed", run=folder.id, user=house.account.name, freed_bytes=freed)
        shutil.rmtree(folder.path)
    return RemovedRun(folder.id, freed)


def _require_no_job(folder: RunFolder) -> None:
    job = live_job(folder, InstalledSlurm()) if folder.record().state is not RunState.FINISHED else None
    if job is not None:
        raise ConfigError(
            f"run {folder.id} is job {job.id}, which is {job.state}", hint=f"rsc runs stop {folder.id}"
        )


def _starts_from(other: RunFolder, folder: RunFolder) -> bool:
    if other.record().state == RunState.FINISHED:
        return False
    try:
        return recipe_of(other).model.init_from == folder.id
    except RscError:
        return False  # of another version, or broken: it goes on nowhere


def _jobs(found: Sequence[RunFolder]) -> dict[str, SlurmJob]:
    """By run: its job, while Slurm knows it. A Slurm that does not answer hides no run."""
    jobs, problem = jobs_of(found, InstalledSlurm())
    if problem:
        logging.getLogger("rsc").warning("states are those of the runs' folders: %s", problem)
    return jobs


def _listed(folder: RunFolder, *, job: SlurmJob | None = None) -> dict[str, Any]:
    """The record, with what its file does not know: of a job that lives the state that Slurm gives it; of a
    run that is driven where it is and what it does. A run whose controller died without a word is
    interrupted, whatever its file says."""
    record = {**asdict(folder.record()), "path": str(folder.path), "doing": None, "job": None, "nodes": None}
    record["state"] = str(record["state"])
    if job is not None:
        record |= {"job": job.id, "nodes": job.nodes}
    if job is not None and job.is_live:
        record |= {"state": job.state, "reason": job.reason}
        return record | (_now(folder) if job.state == "RUNNING" else {})
    if record["state"] != RunState.RUNNING:
        return record
    now = _now(folder)
    if folder.holder() is None:
        del now["doing"]
        interrupted = {"state": str(RunState.INTERRUPTED), "reason": "its controller ended without a word"}
        return record | now | interrupted
    return record | now


def _now(folder: RunFolder) -> dict[str, Any]:
    now = present(folder, now=SystemClock().now())
    return {"step": now.step, "loss": now.loss, "doing": now.doing}


def _settings(folder: RunFolder) -> dict[str, Any]:
    """By dotted key, in the order of the file."""
    if not UntrustedFolder(folder.path).exists("resolved.toml"):
        raise ConfigError(f"run {folder.id} has no resolved.toml", hint="compare others: rsc runs ls")
    return dict(_leaves(resolve(str(folder.path / "resolved.toml")).values, prefix=""))


def _leaves(values: dict[str, Any], *, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _figures(found: Sequence[RunFolder]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {name: [] for name in ("state", "step", "loss", "val_loss", "step_s")}
    for folder in found:
        listed, columns = _listed(folder), metrics_of(folder)
        rows["state"].append(listed["state"])
        rows["step"].append(listed["step"])
        rows["loss"].append(listed["loss"])
        rows["val_loss"].append(_last(columns.get("val_loss")))
        seconds = columns.get("step_s")
        rows["step_s"].append(None if seconds is None or not len(seconds) else float(np.median(seconds)))
    return rows


def _last(column: NDArray[np.float64] | None) -> float | None:
    """The newest figure that is one."""
    known = column[~np.isnan(column)] if column is not None else np.empty(0)
    return float(known[-1]) if len(known) else None


def _num_equal(common: Sequence[int], losses: Sequence[dict[int, float | None]]) -> int:
    for number, step in enumerate(common):
        if len({repr(each[step]) for each in losses}) > 1:
            return number
    return len(common)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) or value is None


def _figure(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")

"""What a run starts from (`model.init_from`), found and checked before any process starts. No torch here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsc.checkpoint.retention import finished
from rsc.errors import ConfigError, NotFinished
from rsc.export.settings import ExportSettings, is_export, read_settings
from rsc.layers import Resolved
from rsc.models.config import ModelConfig
from rsc.recipes.recipe import recipe_of
from rsc.recipes.same_trunk import require_same_trunk
from rsc.recipes.tokens_fit import require_same_text
from rsc.runs.folder import find_run, list_runs
from rsc.store.bulk.untrusted import UntrustedStore


@dataclass(frozen=True)
class Parent:
    """What a run starts from."""

    name: str
    """The whole id of a run, or the absolute path of open weights."""
    lineage: dict[str, Any]


def find_parent(name: str, *, runs: Path, model: ModelConfig) -> Parent | None:
    """A folder of open weights, or a run however it was abbreviated; None where no parent was asked for.

    Raises ConfigError where there is none of that name or its trunk is another, NotFinished for a run that
    has no checkpoint.
    """
    if not name:
        return None
    folder = Path(name)
    if is_export(folder):
        settings = read_settings(folder)
        require_same_trunk(settings.config.trunk, ours=model.trunk, of=name)
        require_same_text(settings.config.text, ours=model.text, of=name)
        digests = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
        lineage = {"open_weights": folder.name, "sha256": digests, **exported_from(settings, runs=runs)}
        return Parent(str(folder.resolve()), lineage)
    if folder.is_dir():
        raise ConfigError(
            f"model.init_from: {name} holds no .safetensors files",
            hint="give the folder of an export, or a run of `rsc runs ls`",
        )
    run = find_run(runs, name)
    theirs = recipe_of(run).model
    require_same_trunk(theirs.trunk, ours=model.trunk, of=f"run {run.id}")
    require_same_text(theirs.text, ours=model.text, of=f"run {run.id}")
    if not finished(UntrustedStore(run.path, "checkpoints")):
        raise NotFinished(f"run {run.id} has no checkpoint to start from", hint="train it first")
    return Parent(run.id, {"run": run.id, **run.record().lineage})


def exported_from(settings: ExportSettings, *, runs: Path) -> dict[str, Any]:
    """`export_of`: the lineage of the run that our export names, where that run is here. Of another workspace
    nothing is taken over: its names of data sets mean others here."""
    for run in list_runs(runs):
        if run.id == settings.own.get("run"):
            return {"export_of": {"run": run.id, **run.record().lineage}}
    return {}


def with_parent(resolved: Resolved, parent: str) -> Resolved:
    """The settings with the whole name of what the run starts from."""
    values = {**resolved.values, "model": {**resolved.values["model"], "init_from": parent}}
    return Resolved(name=resolved.name, values=values, provenance=resolved.provenance)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex; about a second for 2 GB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

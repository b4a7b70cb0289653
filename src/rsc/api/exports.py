"""Open weights, tokenizer and model card: `rsc runs export`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from rsc.api.record import Record, entry, html_table
from rsc.config import Workspace
from rsc.control.init_from import file_digest
from rsc.errors import ConfigError
from rsc.evaluate.assess import kept_in
from rsc.evaluate.open_model import load_run
from rsc.export.card import to_json, to_markdown
from rsc.export.card_facts import card_facts
from rsc.export.layout import why_not_open
from rsc.export.weights import write_export
from rsc.recipes.recipe import recipe_of
from rsc.release.agent.custody import Custody
from rsc.release.agent.request import KeyRequest
from rsc.release.record.run_origin import require_origin
from rsc.runs.folder import find_run

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ExportedModel(Record):
    path: str
    layout: str
    reason: str | None
    """Why the layout is RSC's own and no open one; None or empty where it is open."""
    step: int
    parameters: int
    files: list[str]
    passed_over: list[int]
    """Newer checkpoints that are damaged."""
    is_language: bool
    """Whether `generate` continues texts with it; else it answers `predict`."""

    def _repr_html_(self) -> str:
        rows = [("folder", self.path), ("layout", self.layout), ("parameters", f"{self.parameters:,}")]
        return html_table(f"export of step {self.step}", rows)


@entry
def export(
    run: str, *, to: str | Path | None = None, dtype: str = "float32", step: str = "newest"
) -> ExportedModel:
    """Write the folder and say what it is. Raises GateRefused where the data's policy forbids it."""
    if dtype not in _DTYPES:
        raise ConfigError(f"{dtype!r} is not a number format", hint=f"one of: {', '.join(_DTYPES)}")
    workspace = Workspace.from_environment()
    folder = find_run(workspace.runs, run)
    house, recipe = Custody(workspace), recipe_of(folder)
    origin = require_origin(house.recorded.runs, folder.id)
    origin.require_papers(folder.record().lineage)
    for name, version in origin.own_data():  # publishing a model is a use of its data: asked and logged
        house.agent.release(KeyRequest("export", data=name, version=version)).close()
    with house.agent.release(KeyRequest("export", run=folder.id)) as key:
        loaded = load_run(folder, key=key, step=step)
    config, state, trained_step = recipe.model, loaded.model.state_dict(), loaded.step
    reason = why_not_open(config, state=state)
    facts = card_facts(
        folder,
        workspace=workspace,
        recipe=recipe,
        num_parameters=sum(tensor.numel() for tensor in state.values()),
        layout=f"RSC's own layout ({reason})" if reason else "open layout (config.json, safetensors)",
        step=trained_step,
        evaluation=kept_in(folder.path),
    )
    place = Path(to or folder.path / "export" / f"step-{trained_step}").absolute()
    about = {"run": folder.id, "path": str(place), "user": house.account.name, "step": trained_step}
    house.audit.append("run_export_began", **about)  # a kill on the way leaves no copy that nobody knows of
    result = write_export(
        place,
        config=config,
        state=state,
        context=recipe.data.sequence_length,
        separator=recipe.data.separator if recipe.is_packed_language else None,
        dtype=_DTYPES[dtype],
        settings={"run": folder.id, "step": trained_step},
        extra_files={"README.md": to_markdown(facts), "card.json": to_json(facts)},
    )
    digest = folder_digest(place)
    house.audit.append("exported", **about, data=recipe.data.name, layout=result.layout, sha256=digest)
    return ExportedModel(
        path=str(result.path),
        layout=result.layout,
        reason=result.reason,
        step=trained_step,
        parameters=result.num_parameters,
        files=list(result.files),
        passed_over=list(loaded.passed_over),
        is_language=config.task.is_language,
    )


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of the files of an export, hex: identifies a copy of it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()

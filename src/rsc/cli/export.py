"""`rsc runs export RUN`: open weights, tokenizer and model card."""

from __future__ import annotations

import getpass
from pathlib import Path

import torch

from rsc.audit.log import AuditLog
from rsc.cli.eval import release
from rsc.cli.output import emit, next_commands, say
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.evaluate.assess import kept_in
from rsc.evaluate.open_model import whole_state
from rsc.export.card import to_json, to_markdown
from rsc.export.card_facts import card_facts
from rsc.export.layout import why_not_open
from rsc.export.weights import write_export
from rsc.recipes.recipe import recipe_of
from rsc.release.agent.request import KeyRequest
from rsc.runs.folder import RunFolder

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_run(
    run: RunFolder, *, workspace: Workspace, target: Path | None, dtype: str, as_json: bool
) -> None:
    """Write the folder and say what it is. Raises GateRefused where the data's policy forbids it."""
    if dtype not in _DTYPES:
        raise ConfigError(f"{dtype!r} is not a number format", hint=f"one of: {', '.join(_DTYPES)}")
    recipe, user = recipe_of(run), getpass.getuser()
    for each in recipe.data.sets:  # publishing a model is a use of its data: asked and logged
        data = KeyRequest(purpose="export", user=user, data=each.name, version=each.version)
        release(data, workspace=workspace).close()
    with release(KeyRequest(purpose="export", user=user, run=run.id), workspace=workspace) as key:
        config, state, step = whole_state(run, key=key)
    reason = why_not_open(config, state=state)
    facts = card_facts(
        run,
        workspace=workspace,
        recipe=recipe,
        num_parameters=sum(tensor.numel() for tensor in state.values()),
        layout=f"RSC's own layout ({reason})" if reason else "open layout (config.json, safetensors)",
        step=step,
        evaluation=kept_in(run.path),
    )
    result = write_export(
        target or run.path / "export" / f"step-{step}",
        config=config,
        state=state,
        context=recipe.data.sequence_length,
        separator=recipe.data.separator if recipe.is_packed_language else None,
        dtype=_DTYPES[dtype],
        settings={"run": run.id, "step": step},
        extra_files={"README.md": to_markdown(facts), "card.json": to_json(facts)},
    )
    AuditLog.open(workspace.audit, clock=SystemClock()).append(
        "exported", run=run.id, data=recipe.data.name, user=user, step=step, layout=result.layout
    )
    record = {"path": str(result.path), "layout": result.layout, "reason": result.reason, "step": step}
    record |= {"parameters": result.num_parameters, "files": list(result.files)}
    emit(record, as_json=as_json, text=str(result.path))
    if result.reason:
        say(f"in RSC's own layout, not an open one: {result.reason}")
    speaks = config.head.kind == "next_token"
    next_commands(f"rsc generate {result.path}" if speaks else f"rsc predict {result.path} FILE")

"""What a run will be, decided and checked before it exists: data admitted, parent found, settings pinned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsc.cluster.sandbox.wrap import Level
from rsc.control.admission import Gate, admit_all, isolation_of
from rsc.control.init_from import find_parent, with_parent
from rsc.errors import ConfigError
from rsc.layers import Resolved
from rsc.parallel.layout import Layout
from rsc.recipes.pin import count_workers, pin
from rsc.recipes.recipe import LoadedRecipe, Recipe
from rsc.recipes.tokens_fit import tokenizer_of
from rsc.release.record.run_origin import RunOrigin, used_in
from rsc.tokenizer_json import JsonTokenizer


@dataclass(frozen=True)
class RunPlan:
    resolved: Resolved
    recipe: Recipe
    layout: Layout
    lineage: dict[str, Any]
    """What run.json says to people."""
    origin: RunOrigin
    """What the log will say, and decisions go by; the run has no name yet."""
    isolation: Level
    """What the policies of all data behind the run ask of workers."""
    tokenizer: JsonTokenizer | None
    """Goes into the run's folder: the file that the recipe named may change, and workers cannot see it."""

    @property
    def opening(self) -> str:
        """The first words about the run."""
        return f"{self.recipe.train.steps} steps on {_workers_text(self.layout, self.recipe)}"


def plan_run(loaded: LoadedRecipe, *, gate: Gate, runs: Path, workers: int | None) -> RunPlan:
    """Ask the gate, find the parent in `runs`, choose the layout; `workers` beats the recipe's.

    Raises GateRefused, and ConfigError for what can never train; nothing has been written by then.
    """
    model = loaded.recipe.model
    admission = admit_all(gate, loaded.recipe.data, model=model)
    parent = find_parent(model.init_from, runs=runs, model=model)
    tokenizer = tokenizer_of(model.text) if model.text is not None else None
    resolved = pin(
        with_parent(loaded.resolved, parent.name) if parent else loaded.resolved,
        versions=admission.versions,
        workers=workers or count_workers(loaded.recipe),
        tokenizer_sha256=tokenizer.sha256 if tokenizer is not None else "",
    )
    recipe = Recipe.model_validate(resolved.values)
    workers, nodes = recipe.parallel.workers, recipe.cluster.nodes
    if workers % nodes:
        raise ConfigError(
            f"{workers} workers do not divide over {nodes} nodes",
            hint=f"set parallel.workers={-(-workers // nodes) * nodes}, or another cluster.nodes",
        )
    layout = recipe.layout(world=workers)
    lineage = {**admission.lineage, "recipe_sha256": resolved.digest, "layout": str(layout)}
    if parent is not None:
        lineage["parent"] = parent.lineage
    origin = _origin(resolved, lineage=lineage, gate=gate)
    return RunPlan(resolved, recipe, layout, lineage, origin, isolation_of(gate, origin), tokenizer)


def _origin(resolved: Resolved, *, lineage: dict[str, Any], gate: Gate) -> RunOrigin:
    """Where a run will come from. What it starts from is asked of the log, not of that run's papers."""
    parent = lineage.get("parent", {})
    before = gate.origin(parent["run"]) if "run" in parent else None
    exported = gate.origin(parent["export_of"]["run"]) if "export_of" in parent else None
    return RunOrigin(
        run="",
        recipe=resolved.name,
        recipe_sha256=resolved.digest,
        data=tuple(used_in(lineage)),
        inherited=(*before.data, *before.inherited) if before else (),
        exported=tuple(each for origin in (before, exported) if origin for each in origin.traced()),
        parent=parent.get("run") or parent.get("open_weights"),
    )


def _workers_text(layout: Layout, recipe: Recipe) -> str:
    workers = recipe.parallel.workers
    if workers == 1:
        return "1 worker: one process that uses every core is faster than ranks that exchange weights"
    return f"{workers} workers; {layout.why}"

"""The model card: a record of facts, written out. No logic of its own: who exports gathers the facts.

The layout follows Mitchell et al. 2019 (arXiv:1810.03993): what it is, what it was made from, how it
was measured and for whom it errs, what it is for and not for. An unknown fact is written "unknown".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

UNKNOWN = "unknown"


@dataclass(frozen=True)
class CardData:
    """One data set version the model has seen."""

    name: str
    version: int
    root_hash: str
    split: str
    num_samples: int
    key_period: str
    review_state: str
    approvers: Sequence[str]
    single_person: bool
    policy_hash: str
    report_hash: str
    purposes: Sequence[str] = ()
    expires: str = UNKNOWN
    cipher: str = UNKNOWN
    """What the policy says of it."""
    findings: Mapping[str, int] | None = None
    """What the gate found, by type; counts only. None: no longer known."""


@dataclass(frozen=True)
class RunFacts:
    run: str
    recipe: str
    recipe_hash: str
    code_version: str
    code_hash: str
    """SHA-256 over the sources that trained it."""
    seed: int
    steps: int
    precision: str
    machine: str
    layout: str
    """Ranks per mesh axis."""
    started: str
    finished: str
    restarts: int
    energy_wh: float | None
    """Measured by a meter, or None: never an estimate."""
    energy_source: str = UNKNOWN
    faults_injected: str = ""
    isolation: str = UNKNOWN
    parent: str = ""
    """Run or open weights it started from."""


@dataclass(frozen=True)
class MeasureFacts:
    """One line of the table of results."""

    name: str
    value: float
    low: float
    high: float
    split: str
    count: int
    note: str = ""


@dataclass(frozen=True)
class SliceFacts:
    group: str
    count: int
    false_positive_rate: tuple[float, float, float]
    """Value, low, high."""
    false_negative_rate: tuple[float, float, float]


@dataclass(frozen=True)
class CardFacts:
    name: str
    domain: str
    num_parameters: int
    layout: str
    context: str
    data: Sequence[CardData]
    run: RunFacts
    measures: Sequence[MeasureFacts]
    slices: Sequence[SliceFacts] = ()
    intended_use: Sequence[str] = ()
    limits: Sequence[str] = ()


def to_json(facts: CardFacts) -> str:
    """The facts as a JSON document, for programs; a figure that is not there (NaN) is null."""
    return json.dumps(_nulled(asdict(facts)), indent=2, sort_keys=True, allow_nan=False)


def _nulled(value: Any) -> Any:
    """JSON has no NaN, and strict readers refuse a document that writes one."""
    if isinstance(value, dict):
        return {name: _nulled(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def to_markdown(facts: CardFacts) -> str:
    """The facts as a page, for people."""
    parts = [
        f"# {facts.name}\n",
        _table(_model_rows(facts)),
        "## Data\n",
        *(_table(_data_rows(data)) for data in facts.data),
        "## Training\n",
        _table(_run_rows(facts.run)),
        "## Evaluation\n",
        _measures(facts.measures),
        *_slices(facts.slices),
        "## Intended use\n",
        _bullets(facts.intended_use),
        "## Limits\n",
        _bullets(facts.limits),
    ]
    return "\n".join(parts)


def _model_rows(facts: CardFacts) -> dict[str, str]:
    return {
        "domain": facts.domain,
        "parameters": f"{facts.num_parameters:,}",
        "weights": facts.layout,
        "input": facts.context,
    }


def _data_rows(data: CardData) -> dict[str, str]:
    alone = " (single-person mode: one person imported and approved)" if data.single_person else ""
    return {
        "data set": f"{data.name} v{data.version}, split {data.split}, {data.num_samples:,} samples",
        "root hash": data.root_hash,
        "review": f"{data.review_state} by {', '.join(data.approvers) or UNKNOWN}{alone}",
        "policy hash": data.policy_hash,
        "report hash": data.report_hash,
        "purposes": ", ".join(data.purposes) or UNKNOWN,
        "found by the gate": _findings(data.findings),
        "cipher by policy": data.cipher,
        "key period": data.key_period,
        "data expire": data.expires,
    }


def _findings(findings: Mapping[str, int] | None) -> str:
    if findings is None:
        return UNKNOWN
    return ", ".join(f"{kind} {count:,}" for kind, count in findings.items()) or "nothing"


def _run_rows(run: RunFacts) -> dict[str, str]:
    energy = UNKNOWN if run.energy_wh is None else f"{run.energy_wh:,.1f} Wh, measured ({run.energy_source})"
    rows = {
        "run": run.run,
        "recipe": run.recipe,
        "recipe hash": run.recipe_hash,
        "code": f"RSC {run.code_version}, sources {run.code_hash}",
        "seed": str(run.seed),
        "steps": f"{run.steps:,}",
        "precision": run.precision,
        "machine": run.machine,
        "layout": run.layout,
        "started": run.started,
        "finished": run.finished,
        "restarts": str(run.restarts),
        "energy": energy,
        "isolation": run.isolation,
    }
    if run.faults_injected:
        rows["faults injected on purpose"] = run.faults_injected
    if run.parent:
        rows["started from"] = run.parent
    return rows


def _measures(measures: Sequence[MeasureFacts]) -> str:
    if not measures:
        return "Not evaluated: run `rsc eval` before the export.\n"
    lines = ["| measure | value | 95 % interval | split | items |", "|---|---|---|---|---|"]
    for m in measures:
        name = f"{m.name} ({m.note})" if m.note else m.name
        interval = "not computed" if math.isnan(m.low) else f"{m.low:.4g} to {m.high:.4g}"
        lines.append(f"| {name} | {m.value:.4g} | {interval} | {m.split} | {m.count:,} |")
    return "\n".join(lines) + "\n"


def _rate(measured: tuple[float, float, float]) -> str:
    value, low, high = measured
    return "no such samples" if math.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _slices(slices: Sequence[SliceFacts]) -> list[str]:
    if not slices:
        return []
    lines = [
        "### By group\n",
        "| group | samples | false positives (95 %) | false negatives (95 %) |",
        "|---|---|---|---|",
    ]
    for s in slices:
        rates = " | ".join(map(_rate, (s.false_positive_rate, s.false_negative_rate)))
        lines.append(f"| {s.group} | {s.count:,} | {rates} |")
    return ["\n".join(lines) + "\n"]


def _table(rows: Mapping[str, str]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n" if lines else "Not stated.\n"

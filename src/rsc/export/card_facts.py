"""Gather the facts of a model card from where they lie: the run, the data set's review, the evaluation."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rsc.config import Workspace
from rsc.errors import RscError
from rsc.events import read_lines
from rsc.export.card import UNKNOWN, CardData, CardFacts, MeasureFacts, RunFacts, SliceFacts
from rsc.models.config import ModelConfig
from rsc.recipes.recipe import Recipe
from rsc.review.policy import parse_policy
from rsc.review.report import report_from_json
from rsc.runs.folder import RunFolder
from rsc.store.dataset import Dataset

_USES = {
    "language": "continuing text of the kind it was trained on",
    "vision": "sorting pictures of the kind it was trained on into its classes",
    "speech": "recordings of the kind it was trained on",
    "text": "sorting texts of the kind it was trained on into its classes, with a person deciding",
    "multimodal": "posts of text and picture of the kind it was trained on, with a person deciding",
}
_LIMITS = (
    "Measured on held-out records of the same source; other sources were not measured.",
    "A model can repeat parts of its training data; what personal data it saw depends on the review's rules.",
)
_SLICE_LIMIT = (
    "It errs at different rates for different groups: the table shows those declared, and no others."
)
_NO_SLICE_LIMIT = "Error rates by group were not measured: none was declared in [eval]."


def card_facts(
    run: RunFolder,
    *,
    workspace: Workspace,
    recipe: Recipe,
    num_parameters: int,
    layout: str,
    step: int,
    evaluation: Mapping[str, Any],
) -> CardFacts:
    """Everything the card says. What cannot be found is "unknown"."""
    domain = domain_of(recipe.model)
    sorts = recipe.model.task.pools_features
    slices = [facts for result in evaluation.values() for facts in _slices(result)]
    limits = [*_LIMITS, *_unknown_origin(run)]
    limits += [*([_SLICE_LIMIT if len(slices) > 1 else _NO_SLICE_LIMIT] if sorts else [])]
    return CardFacts(
        name=run.id,
        domain=domain,
        num_parameters=num_parameters,
        layout=layout,
        context=_input(recipe),
        data=[_data(each, workspace=workspace, split=recipe.data.split) for each in lineages(run)],
        run=_run(run, recipe=recipe, step=step),
        measures=[facts for result in evaluation.values() for facts in _measures(result)],
        slices=slices if len(slices) > 1 else [],
        intended_use=[f"Research on {_USES[domain]}."],
        limits=limits,
    )


def domain_of(config: ModelConfig) -> str:
    """The word for what a model reads and answers."""
    stems = [name for name in ("text", "image", "audio") if getattr(config, name) is not None]
    if len(stems) > 1:
        return "multimodal"
    return {"image": "vision", "audio": "speech"}.get(
        stems[0], "language" if config.task.is_language else "text"
    )


def _input(recipe: Recipe) -> str:
    model, parts = recipe.model, []
    if model.image is not None:
        parts.append(f"pictures of {model.image.height} x {model.image.width} pixels")
    if model.audio is not None:
        parts.append(f"sound at {model.audio.sample_rate:,} Hz, up to {model.audio.max_seconds:g} s")
    if model.text is not None:
        length = recipe.data.sequence_length if model.task.is_language else model.text.max_length
        parts.append(f"text of {length:,} {'bytes' if model.text.tokenizer == 'bytes' else 'tokens'}")
    return " and ".join(parts)


def lineages(run: RunFolder) -> list[Mapping[str, Any]]:
    """Where the run comes from, and where the run it started from comes from, and so on; open weights end it
    that are no export of a run here: their data are not known."""
    found: list[Mapping[str, Any]] = []
    lineage: Mapping[str, Any] = run.record().lineage
    while lineage:
        if "open_weights" not in lineage:
            found += [lineage, *lineage.get("mixed", [])]
        lineage = _before(lineage)
    return found


def _before(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lineage of what the weights were before, as far as it is known."""
    before: Mapping[str, Any] = lineage.get("parent") or lineage.get("export_of") or {}
    return before


def _unknown_origin(run: RunFolder) -> list[str]:
    """A line on open weights that the run, or one before it, started from."""
    lineage: Mapping[str, Any] = run.record().lineage
    while lineage and ("open_weights" not in lineage or "export_of" in lineage):
        lineage = _before(lineage)
    if not lineage:
        return []
    digests = ", ".join(f"{name} sha256 {digest}" for name, digest in lineage["sha256"].items())
    return [
        f"Started from open weights {lineage['open_weights']} ({digests}): what they saw is not known here."
    ]


_CIPHERS = {
    "auto": "AES-256-GCM or AEGIS-256, whichever the machine that wrote was set to",
    "aes-256-gcm": "AES-256-GCM",
    "aegis-256": "AEGIS-256 (not approved by NIST)",
    "fips": "only what NIST approves: AES-256-GCM",
}


def _data(lineage: Mapping[str, Any], *, workspace: Workspace, split: str) -> CardData:
    """From the lineage, which was written when training began; what is gone since is unknown."""
    data, review = lineage.get("data", {}), lineage.get("review", {})
    num_samples = 0
    more: dict[str, Any] = {}
    try:
        dataset = Dataset.open(workspace.bulk, name=data["name"], version=data["version"])
        num_samples = dataset.splits[split].num_samples
        policy = parse_policy(dataset.read_review("policy.toml") or b"")
        found = report_from_json(dataset.read_review("report.json") or b"").by_type()
        expires = f"{policy.retention} after {dataset.created:%Y-%m-%d}"
        cipher = _CIPHERS[policy.cipher]
        more = {"purposes": policy.purpose, "findings": found, "expires": expires, "cipher": cipher}
    except (RscError, KeyError, ValueError):
        pass  # expired or erased since: the lineage still tells what it was
    return CardData(
        name=data.get("name", UNKNOWN),
        version=data.get("version", 0),
        root_hash=data.get("root_hash", UNKNOWN),
        split=split,
        num_samples=num_samples,
        key_period=lineage.get("key_period", UNKNOWN),
        review_state=review.get("state", UNKNOWN),
        approvers=review.get("approvers", ()),
        single_person=bool(review.get("single_person")),
        policy_hash=review.get("policy_sha256", UNKNOWN),
        report_hash=review.get("report_sha256", UNKNOWN),
        **more,
    )


def _run(run: RunFolder, *, recipe: Recipe, step: int) -> RunFacts:
    record = run.record()
    events = list(
        read_lines(run.path / "events.jsonl")
    )  # the controller's; sandboxed workers cannot write it
    ended = [event["time"] for event in events if event["kind"] == "ended"]
    drives = [event for event in events if event["kind"] == "driven"]
    measured = [event for event in events if event["kind"] == "energy"]
    lost = [event for event in events if event["kind"] == "failure" and event["reason"] == "supervisor"]
    # a drive that was killed told nothing: then the sum would be too small, and is unknown
    is_measured = bool(measured) and len(measured) == len(drives) - len(lost)
    code = record.lineage.get("code", {})
    return RunFacts(
        run=run.id,
        recipe=record.recipe,
        recipe_hash=record.lineage.get("recipe_sha256", UNKNOWN),
        code_version=code.get("version", UNKNOWN),
        code_hash=code.get("sources_sha256", UNKNOWN),
        seed=recipe.train.seed,
        steps=step,
        precision=run.precision(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        layout=record.lineage.get("layout", UNKNOWN),
        started=record.created,
        finished=ended[-1] if ended else UNKNOWN,
        restarts=record.restarts,
        energy_wh=sum(event["used_wh"] for event in measured) if is_measured else None,
        energy_source=measured[-1]["source"] if is_measured else UNKNOWN,
        faults_injected=recipe.train.fail_at,
        isolation=_isolation(drives),
        parent=recipe.model.init_from,
    )


def _isolation(drives: Sequence[Mapping[str, Any]]) -> str:
    """Whether the workers had a way out, over all starts of the run."""
    if not drives:
        return UNKNOWN
    open_ones = [drive["reason"] for drive in drives if not drive["isolated"]]
    if open_ones:
        return f"not isolated in {len(open_ones)} of {len(drives)} starts: {open_ones[-1]}"
    return f"workers had no network but loopback ({drives[-1]['method']}), probed from inside"


def _measures(result: Mapping[str, Any]) -> list[MeasureFacts]:
    facts = [
        MeasureFacts(name, m["value"], m["low"], m["high"], split=result["split"], count=m["count"])
        for name, m in result["measures"].items()
    ]
    xz = result.get("xz_bits_per_byte")
    if xz is not None:
        facts.append(
            MeasureFacts(
                "xz -9 bits_per_byte",
                xz,
                math.nan,
                math.nan,
                result["split"],
                facts[0].count,
                note="reference",
            )
        )
    details = result.get("details") or {}
    if details.get("calibration"):
        error = details["calibration"]["error"]
        facts.append(
            MeasureFacts("calibration error", error, math.nan, math.nan, result["split"], result["count"])
        )
    return facts


def _slices(result: Mapping[str, Any]) -> list[SliceFacts]:
    rows = (result.get("details") or {}).get("slices") or []
    return [
        SliceFacts(
            row["group"],
            row["count"],
            _triple(row["false_positive_rate"]),
            _triple(row["false_negative_rate"]),
        )
        for row in rows
    ]


def _triple(measure: Mapping[str, float]) -> tuple[float, float, float]:
    return measure["value"], measure["low"], measure["high"]

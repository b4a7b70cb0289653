"""`rsc data review policy`: a person looks before they sign (verdicts.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.api import datasets, reviews, verdicts
from rsc.cli.data import review_text
from rsc.cli.data.access import As, Name, Version
from rsc.cli.output import JsonFlag, emit, next_commands, say, write_new
from rsc.config import Workspace
from rsc.recipes.data_fit import stored_tokenizer
from rsc.recipes.tokens_fit import settings_for
from rsc.review.explain import explain, lint
from rsc.review.policy import parse_policy
from rsc.store.dataset import Dataset


def review(
    name: Name,
    truth: Annotated[
        Path | None, typer.Option(help="The same records with labelled spans, to score against.")
    ] = None,
    samples: Annotated[int, typer.Option(help="How many findings of each type to show in context.")] = 3,
    version: Version = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="A file for a reviewer of another account to sign.")
    ] = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """What the gate found, masked and in context; what it does not look for; the policy in sentences."""
    found = reviews.review(name, version=version, truth=truth, samples=samples, as_name=as_name)
    record = found.to_json()
    emit(record, as_json=as_json, text=review_text.review_text(record))
    if write is not None:
        _write_packet(found, target=write)
    elif found.state == "in_review":
        next_commands(f"rsc data approve {name} --note ...", f"rsc data reject {name} --note ...")


def policy(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """The policy of a data set in sentences. `rsc review policy new` writes one to start from."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.bulk, name=name, version=version)
    content = dataset.read_review("policy.toml") or b""
    rules = parse_policy(content, name=f"the policy of {name}")
    record: dict[str, Any] = {
        **datasets.version_of(dataset),
        "policy": explain(rules),
        "remarks": [remark._asdict() for remark in lint(rules)],
        "toml": content.decode(),
    }
    emit(record, as_json=as_json, text="\n".join(review_text.policy_lines(record)))


def _write_packet(found: reviews.Review, *, target: Path) -> None:
    """For a reviewer of another account."""
    packet = verdicts.packet_of(found.data, version=found.version, shown=found.to_json())
    write_new(target, packet.to_json(), mode=0o600)
    say(f"wrote {target}; let the reviewer's account read it, and no other: setfacl -m u:NAME:r {target}")
    next_commands(
        ("rsc", "data", "approve", found.data, "--packet", target, "--write", "SIGNED"),
        note="by the reviewer",
    )


def train_command(dataset: Dataset) -> str:
    stored = stored_tokenizer(dataset)
    if stored is not None:
        return f"rsc train llama-10m data.name={dataset.name} {' '.join(settings_for(stored))}"
    return f"rsc train {recipe_for(dataset)} data.name={dataset.name}"


def recipe_for(dataset: Dataset) -> str:
    """The recipe whose fields the data have; language where none fits better."""
    names = {field.name for field in next(iter(dataset.splits.values())).schema.fields}
    if {"image", "text", "label"} <= names:
        return "harmful-content-multimodal"
    for recipe, wanted in (("vision", {"image", "label"}), ("speech", {"audio", "label"})):
        if wanted <= names:
            return recipe
    if {"audio", "text"} <= names:
        return "speech-ctc"
    return "harmful-content" if {"text", "class"} <= names else "language"

"""`rsc data review approve reject policy`: a person looks, and signs."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.data import review_text, text
from rsc.cli.data.access import As, Name, Note, Version, identity_of, user_name
from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest.inspect import excerpts, findings_by_record, read_findings, read_quarantine, read_rows
from rsc.ingest.sink import QUARANTINE_SPLIT
from rsc.keys.secret import SecretKey
from rsc.recipes.data_fit import stored_tokenizer
from rsc.recipes.tokens_fit import settings_for
from rsc.release.agent.custody import Custody
from rsc.release.agent.facts import data_facts
from rsc.review.approval import verdict
from rsc.review.benchmark.score import Rate, read_corpus, score
from rsc.review.explain import explain, lint
from rsc.review.k_anonymity import TableReport, assess_table
from rsc.review.policy import Tables, parse_policy
from rsc.review.report import report_from_json
from rsc.store.dataset import Dataset

_QUARANTINED_SHOWN = 100  # enough to see what is wrong with a source; the first ones are read, not all


def review(
    name: Name,
    truth: Annotated[
        Path | None, typer.Option(help="The same records with labelled spans, to score against.")
    ] = None,
    samples: Annotated[int, typer.Option(help="How many findings of each type to show in context.")] = 3,
    version: Version = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """What the gate found, masked and in context; what it does not look for; the policy in sentences."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    facts = data_facts(dataset, identities=house.workspace.identities, now=house.clock.now())
    record: dict[str, Any] = {
        **text.state_record(dataset, facts),
        "report": review_text.report_record(report_from_json(dataset.read_review("report.json") or b"")),
        "policy": explain(facts.policy),
        "remarks": [remark._asdict() for remark in lint(facts.policy)],
    }
    with house.review_key(dataset, user=user_name(as_name)) as key:
        shown = excerpts(dataset, key=key, per_type=samples)
        record["samples"] = [review_text.excerpt_record(item) for item in shown]
        first_bad = islice(read_quarantine(dataset, key=key), _QUARANTINED_SHOWN)
        record["quarantine"] = {
            "records": dataset.splits[QUARANTINE_SPLIT].num_samples,
            "first": [review_text.quarantined_record(item) for item in first_bad],
        }
        if facts.policy.tables.quasi_identifiers:
            record["tables"] = asdict(_assess(dataset, rules=facts.policy.tables, key=key))
        else:
            record["remarks"] += _unassessed(dataset)
        if truth is not None:
            record["score"] = _score(dataset, key=key, truth=truth)
    emit(record, as_json=as_json, text=review_text.review_text(record))
    if facts.review.state == "in_review":
        next_commands(f"rsc data approve {name} --note ...", f"rsc data reject {name} --note ...")


def approve(name: Name, note: Note = "", version: Version = None, as_name: As = None) -> None:
    """Sign for a version: the data, the report and the policy as they are now, and nothing else."""
    _sign(verdict.approve, name=name, version=version, note=note, as_name=as_name)


def reject(name: Name, note: Note = "", version: Version = None, as_name: As = None) -> None:
    """Sign against a version. One rejection is enough; keys are then released to nobody."""
    _sign(verdict.reject, name=name, version=version, note=note, as_name=as_name)


def policy(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """The policy of a data set in sentences. `rsc review policy new` writes one to start from."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.bulk, name=name, version=version)
    content = dataset.read_review("policy.toml") or b""
    rules = parse_policy(content, name=f"the policy of {name}")
    record = {
        **text.version_record(dataset),
        "policy": explain(rules),
        "remarks": [remark._asdict() for remark in lint(rules)],
        "toml": content.decode(),
    }
    emit(record, as_json=as_json, text="\n".join(review_text.policy_lines(record)))


def _score(dataset: Dataset, *, key: SecretKey, truth: Path) -> dict[str, Any]:
    """Recall and precision of the stored findings. Line n of `truth` is record n of the source."""
    found = findings_by_record(read_findings(dataset, key=key), field="text")
    corpus = list(read_corpus(truth))
    num_read = dataset.facts.get("records", {}).get("read")
    if len(corpus) != num_read:
        raise DataError(
            f"{truth.name} has {len(corpus)} records, the source of {dataset.name} had {num_read}",
            hint="the truth must hold the same records in the same order",
        )
    numbers = iter(range(len(corpus)))
    result = score(corpus, scan=lambda _: found.get(next(numbers), []))
    return {
        "recall": _share(result.overall.covered),
        "precision": _share(result.overall.precision),
        **result.to_dict(),
    }


def _share(rate: Rate) -> float | None:
    return None if rate.value is None else round(rate.value, 4)


def _assess(dataset: Dataset, *, rules: Tables, key: SecretKey) -> TableReport:
    """How well the rows hide each other. Raises ConfigError for a declared column that is not there."""
    names = (*rules.quasi_identifiers, *rules.sensitive)
    return assess_table(list(read_rows(dataset, names, key=key)), rules=rules)


def _unassessed(dataset: Dataset) -> list[dict[str, str]]:
    """A word about the columns beside the text, which can single somebody out without naming anybody."""
    (train, *_) = dataset.splits.values()
    columns = [field.name for field in train.schema.fields if field.kind not in ("string", "bytes")]
    if len(columns) < 2:
        return []
    told = f"k-anonymity is not assessed: none of {', '.join(columns)} is declared as a quasi-identifier"
    return [{"level": "note", "field": "tables.quasi_identifiers", "sentence": told}]


def _sign(decide: Any, *, name: str, version: int | None, note: str, as_name: str | None) -> None:
    house = Custody.open()
    workspace, clock = house.workspace, house.clock
    dataset = Dataset.open(workspace.bulk, name=name, version=version)
    before = data_facts(dataset, identities=workspace.identities, now=clock.now())
    identity = identity_of(workspace, as_name)
    if decide is verdict.approve and before.policy.tables.quasi_identifiers:
        with house.review_key(dataset, user=identity.name) as key:
            _assess(dataset, rules=before.policy.tables, key=key).require(data=name)
    facts = verdict.review_facts(
        root_hash=dataset.root_hash,
        report=dataset.read_review("report.json") or b"",
        policy=dataset.read_review("policy.toml") or b"",
        decisions=dataset.read_review("decisions.json") or b"",
        author=str(dataset.facts.get("author", "")),
    )
    signed = decide(facts, policy=before.policy, identity=identity, note=note, clock=clock)
    dataset.write_review(f"approvals/{identity.public_key[:16]}.json", signed.to_json())
    house.audit.append(
        signed.verdict,
        data=name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        approver=identity.name,
        note=note,
    )
    after = data_facts(dataset, identities=workspace.identities, now=clock.now())
    say(review_text.verdict_text(signed, dataset=dataset, state=after.review))
    if after.review.state == "approved":
        next_commands(_train_command(dataset), f"rsc data show {name}")
    else:
        next_commands(f"rsc data show {name}", "rsc data ls")


def _train_command(dataset: Dataset) -> str:
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

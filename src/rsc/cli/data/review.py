"""`rsc data review policy`: a person looks before they sign (verdicts.py)."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.data import review_text, text
from rsc.cli.data.access import As, Name, Version
from rsc.cli.output import JsonFlag, emit, next_commands, say, write_new
from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest.inspect import excerpts, findings_by_record, read_findings, read_quarantine, read_rows
from rsc.ingest.sink import QUARANTINE_SPLIT
from rsc.keys.secret import SecretKey
from rsc.recipes.data_fit import stored_tokenizer
from rsc.recipes.tokens_fit import settings_for
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import acting_name
from rsc.review.approval.packet import Packet
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
    write: Annotated[
        Path | None, typer.Option("--write", help="A file for a reviewer of another account to sign.")
    ] = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """What the gate found, masked and in context; what it does not look for; the policy in sentences."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    acting_name(house, as_name)
    facts = house.facts(dataset)
    record: dict[str, Any] = {
        **text.state_record(dataset, facts),
        "report": review_text.report_record(report_from_json(dataset.read_review("report.json") or b"")),
        "policy": explain(facts.policy),
        "remarks": [remark._asdict() for remark in lint(facts.policy)],
    }
    with house.review_key(dataset) as key:
        shown = excerpts(dataset, key=key, per_type=samples)
        record["samples"] = [review_text.excerpt_record(item) for item in shown]
        first_bad = islice(read_quarantine(dataset, key=key), _QUARANTINED_SHOWN)
        record["quarantine"] = {
            "records": dataset.splits[QUARANTINE_SPLIT].num_samples,
            "first": [review_text.quarantined_record(item) for item in first_bad],
        }
        if facts.policy.tables.quasi_identifiers:
            record["tables"] = asdict(assess(dataset, rules=facts.policy.tables, key=key))
        else:
            record["remarks"] += _unassessed(dataset)
        if truth is not None:
            record["score"] = _score(dataset, key=key, truth=truth)
    emit(record, as_json=as_json, text=review_text.review_text(record))
    if write is not None:
        _write_packet(dataset, record, target=write)
        return
    if facts.review.state == "in_review":
        next_commands(f"rsc data approve {name} --note ...", f"rsc data reject {name} --note ...")


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


def assess(dataset: Dataset, *, rules: Tables, key: SecretKey) -> TableReport:
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


def _write_packet(dataset: Dataset, record: dict[str, Any], *, target: Path) -> None:
    """For a reviewer of another account."""
    texts = {
        part: (dataset.read_review(file) or b"").decode()
        for part, file in (
            ("report", "report.json"),
            ("policy", "policy.toml"),
            ("decisions", "decisions.json"),
        )
    }
    author = str(dataset.facts.get("author", ""))
    packet = Packet(dataset.name, dataset.version, dataset.root_hash, author, **texts, shown=record)
    write_new(target, packet.to_json(), mode=0o600)
    say(f"wrote {target}; let the reviewer's account read it, and no other: setfacl -m u:NAME:r {target}")
    next_commands(f"rsc data approve {dataset.name} --packet {target} --write SIGNED   # by the reviewer")


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

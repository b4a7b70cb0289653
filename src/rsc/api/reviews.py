"""What a reviewer looks at before they sign: `rsc data review`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rsc.api.datasets import DataState, state_of
from rsc.api.record import entry, html_table
from rsc.errors import DataError
from rsc.ingest.inspect import (
    Excerpt,
    QuarantinedRecord,
    excerpts,
    findings_by_record,
    read_findings,
    read_quarantine,
    read_rows,
)
from rsc.ingest.sink import QUARANTINE_SPLIT
from rsc.keys.secret import SecretKey
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import acting_name
from rsc.review.benchmark.score import Rate, read_corpus, score
from rsc.review.explain import explain, lint
from rsc.review.k_anonymity import TableReport, assess_table
from rsc.review.policy import Tables
from rsc.review.report import ReviewReport, report_from_json
from rsc.store.dataset import Dataset

_QUARANTINED_SHOWN = 100  # enough to see what is wrong with a source; the first ones are read, not all


@dataclass(frozen=True)
class Review(DataState):
    """What the gate found, masked and in context; what it does not look for; the policy in sentences."""

    report: dict[str, Any]
    policy: list[str]
    remarks: list[dict[str, str]]
    samples: list[dict[str, Any]]  # type: ignore[assignment]  # findings; in a DataState they are counts
    quarantine: dict[str, Any]
    tables: dict[str, Any] | None = None
    """How well rows hide each other, where the policy declares quasi-identifiers."""
    score: dict[str, Any] | None = None
    """Against a labelled truth, where one was given."""

    def to_json(self) -> dict[str, Any]:
        """Without the parts that were not asked for."""
        record = asdict(self)
        return {key: value for key, value in record.items() if key not in _OPTIONAL or value is not None}

    def _repr_html_(self) -> str:
        found = [
            (field, kind, action, f"{count:,}")
            for field, kinds in self.report["by_field"].items()
            for kind, actions in kinds.items()
            for action, count in actions.items()
        ]
        excerpts_ = [(item["type"], item["field"], item["context"]) for item in self.samples]
        missing = "; ".join(self.report["not_looked_for"])
        return "".join(
            [
                html_table(f"{self.data} version {self.version}: {self.state}, {self.reason}", []),
                html_table("found", found, header=("field", "type", "action", "count")),
                html_table("in context, masked", excerpts_, header=("type", "field", "context")),
                html_table("the policy", [(line,) for line in self.policy]),
                html_table(f"NOT looked for: {missing}", []),
            ]
        )


_OPTIONAL = ("tables", "score")


@entry
def review(
    name: str,
    *,
    version: int | None = None,
    truth: Path | None = None,
    samples: int = 3,
    as_name: str | None = None,
) -> Review:
    """Open a version for review; the release of its key is logged. `truth` holds the same records with
    labelled spans, `samples` is how many findings of each type are shown. Raises GateRefused."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    acting_name(house, as_name)
    facts = house.facts(dataset)
    remarks: list[dict[str, str]] = [remark._asdict() for remark in lint(facts.policy)]
    tables = measured = None
    with house.review_key(dataset) as key:
        shown = [_excerpt(item) for item in excerpts(dataset, key=key, per_type=samples)]
        first_bad = islice(read_quarantine(dataset, key=key), _QUARANTINED_SHOWN)
        quarantine = {
            "records": dataset.splits[QUARANTINE_SPLIT].num_samples,
            "first": [_quarantined(item) for item in first_bad],
        }
        if facts.policy.tables.quasi_identifiers:
            tables = asdict(assess(dataset, rules=facts.policy.tables, key=key))
        else:
            remarks += _unassessed(dataset)
        if truth is not None:
            measured = _score(dataset, key=key, truth=truth)
    return Review(
        **{
            **state_of(dataset, facts),
            "report": _report(report_from_json(dataset.read_review("report.json") or b"")),
            "policy": list(explain(facts.policy)),
            "remarks": remarks,
            "samples": shown,
            "quarantine": quarantine,
            "tables": tables,
            "score": measured,
        }
    )


def assess(dataset: Dataset, *, rules: Tables, key: SecretKey) -> TableReport:
    """How well the rows hide each other. Raises ConfigError for a declared column that is not there."""
    names = (*rules.quasi_identifiers, *rules.sensitive)
    return assess_table(list(read_rows(dataset, names, key=key)), rules=rules)


def _report(report: ReviewReport) -> dict[str, Any]:
    return {
        "records": report.records,
        "characters": report.characters,
        "dropped": report.records_dropped,
        "findings": report.findings,
        "by_type": report.by_type(),
        "by_field": report.counts,
        "media": report.media,
        "looked_for": list(report.looked_for),
        "not_looked_for": list(report.not_looked_for),
        "notes": list(report.notes),
        "rules": report.rules,
    }


def _excerpt(item: Excerpt) -> dict[str, Any]:
    finding = item.finding
    return {
        "type": finding.type,
        "rule": finding.rule,
        "action": finding.action,
        "field": finding.field,
        "record": finding.record,
        "shape": finding.shape,
        "context": item.context,
    }


def _quarantined(item: QuarantinedRecord) -> dict[str, Any]:
    """Where it was and why it was not taken, without its bytes."""
    return {"record": item.record, "place": item.place, "reason": item.reason}


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


def _unassessed(dataset: Dataset) -> list[dict[str, str]]:
    """A word about the columns beside the text, which can single somebody out without naming anybody."""
    (train, *_) = dataset.splits.values()
    columns = [field.name for field in train.schema.fields if field.kind not in ("string", "bytes")]
    if len(columns) < 2:
        return []
    told = f"k-anonymity is not assessed: none of {', '.join(columns)} is declared as a quasi-identifier"
    return [{"level": "note", "field": "tables.quasi_identifiers", "sentence": told}]

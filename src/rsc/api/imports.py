"""Bring data in: what `rsc data import` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rsc.api.datasets import field_kind
from rsc.api.record import Record, entry, html_table
from rsc.clock import timestamp
from rsc.cluster.health.cpu import usable_cores
from rsc.errors import ConfigError
from rsc.ingest import importer
from rsc.ingest.append import Base
from rsc.ingest.config import ImportOptions
from rsc.ingest.job import ImportResult
from rsc.ingest.progress import ImportProgressLine, Progress
from rsc.ingest.readers.arrays import Batch
from rsc.ingest.readers.elsewhere.pipe import STANDARD_INPUT
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle.subject import subject_key
from rsc.release.record.reviewers import author_name
from rsc.review.policy import default_policy, parse_policy, policy_to_toml
from rsc.store.dataset import Dataset


@dataclass(frozen=True)
class Imported(Record):
    """What became of a source."""

    data: str
    version: int
    root_hash: str
    records: int
    """Read from the source."""
    splits: dict[str, int]
    """Samples stored."""
    fields: dict[str, str]
    source_names: dict[str, str]
    """Stored name -> name in the source, of fields that are called otherwise there."""
    format: str
    types_of_whole_source: bool
    resumed: int
    findings: int
    by_type: dict[str, int]
    dropped: int
    quarantined: dict[str, Any]
    notes: dict[str, int]
    left_out: dict[str, int]
    """Records that `where`, `sample` and `dedup` left out, by reason."""
    ended_at_limit: bool
    appended_to: int | None
    """The version whose records `splits` count, too."""
    taken: list[list[str]]
    source_bytes: int
    seconds: float
    single_person: bool
    """Whether whoever imported may approve alone."""
    kept_until: str
    approval_valid: str
    """How long an approval will count, as the policy writes it."""
    author: str
    enrolled: bool
    """Whether the import enrolled its author as the first reviewer of the workspace."""

    @classmethod
    def of(cls, result: ImportResult, *, policy: bytes, house: Custody, author: str, enrolled: bool) -> Self:
        rules = parse_policy(policy)
        dataset = Dataset.open(house.workspace.bulk, name=result.ref.name, version=result.ref.version)
        return cls(
            data=result.ref.name,
            version=result.ref.version,
            root_hash=result.ref.root_hash,
            records=result.num_read,
            splits=result.splits,
            fields={item.name: field_kind(item) for item in result.fields},
            source_names=result.names,
            format=result.kind,
            types_of_whole_source=result.is_surveyed,
            resumed=result.num_resumed,
            findings=result.report.findings,
            by_type=result.report.by_type(),
            dropped=result.report.records_dropped,
            quarantined={"reasons": result.bad, "places": list(result.bad_places)},
            notes=result.notes,
            left_out=result.left_out,
            ended_at_limit=result.is_limited,
            appended_to=result.appended_to,
            taken=[list(pair) for pair in result.taken],
            source_bytes=result.source_bytes,
            seconds=round(result.seconds, 3),
            single_person=rules.single_person,
            kept_until=timestamp(house.facts(dataset).retained_until),
            approval_valid=rules.approval_valid,
            author=author,
            enrolled=enrolled,
        )

    def _repr_html_(self) -> str:
        rows = [*self.splits.items(), *self.fields.items(), *self.by_type.items()]
        return html_table(f"{self.data} version {self.version}: {self.records:,} records", rows)


@entry
def import_data(
    source: str | Path,
    *,
    name: str | None = None,
    policy: bytes | Path | None = None,
    safeguard: str = "",
    options: ImportOptions | None = None,
    processes: int | None = None,
    append: bool = False,
    as_name: str | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Scan, redact by policy and encrypt a source, in one pass, as `rsc data import`.

    `policy` is TOML, or the path of a file of it; a default one for as many people as the workspace knows if
    left out. `append` adds to the newest version, whose policy holds, and makes a new one to review. Raises
    as `rsc.ingest.importer.import_source`; with `append` also ConfigError where there is no version, and
    GateRefused where its key is not given out.
    """
    house = Custody.open()
    author, enrolled = _author(house, as_name)
    name = name or name_of(str(source))
    with ExitStack() as keys:
        base = _base(house, name, keys=keys) if append else None
        is_given = policy is not None or safeguard
        rules = base.policy if base and not is_given else _policy(house, policy, safeguard=safeguard)
        result = importer.import_source(
            source,
            name=name,
            workspace=house.workspace,
            policy=rules,
            author=author,
            options=options,
            num_processes=processes or usable_cores(),
            clock=house.clock,
            progress=progress or ImportProgressLine(clock=house.clock),
            base=base,
        )
    return Imported.of(result, policy=rules, house=house, author=author, enrolled=enrolled)


def _base(house: Custody, name: str, *, keys: ExitStack) -> Base:
    """The newest version with its keys, which `keys` closes; their release is logged."""
    dataset = Dataset.open(house.workspace.bulk, name=name)
    key = keys.enter_context(house.review_key(dataset))
    return Base(dataset, key, keys.enter_context(subject_key(dataset, key=key)))


@entry
def import_columns(
    columns: Batch | Iterable[Batch],
    *,
    name: str,
    policy: bytes | Path | None = None,
    safeguard: str = "",
    options: ImportOptions | None = None,
    as_name: str | None = None,
) -> Imported:
    """The same for data in memory; docs/import/python.md has what a batch may be."""
    house = Custody.open()
    author, enrolled = _author(house, as_name)
    rules = _policy(house, policy, safeguard=safeguard)
    result = importer.import_columns(
        columns,
        name=name,
        workspace=house.workspace,
        policy=rules,
        author=author,
        options=options,
        clock=house.clock,
    )
    return Imported.of(result, policy=rules, house=house, author=author, enrolled=enrolled)


def name_of(source: str) -> str:
    """`My Posts.jsonl.gz` -> `my-posts`. Raises ConfigError for standard input, which has no name."""
    if source == STANDARD_INPUT:
        raise ConfigError("standard input has no name", hint="say what to call the data set: --name NAME")
    stem = Path(source).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_") or "data"


def _author(house: Custody, as_name: str | None) -> tuple[str, bool]:
    """Who imports, and whether they were enrolled now as the first reviewer."""
    is_first = not house.recorded.reviewers
    author = author_name(house, as_name)
    return author, is_first and bool(house.recorded.reviewers)


def _policy(house: Custody, policy: bytes | Path | None, *, safeguard: str) -> bytes:
    """The policy file as it stands, or a default one for as many people as the workspace knows."""
    if policy is None:
        rules = default_policy(single_person=house.recorded.persons() < 2)
        return policy_to_toml(rules.model_copy(update={"safeguard": safeguard}))
    if safeguard:
        raise ConfigError("a policy and a safeguard were given", hint="write `safeguard` into the policy")
    if isinstance(policy, bytes):
        return policy
    try:
        return Path(policy).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the policy {policy}: {error.strerror}",
            hint=f"write one with `rsc review policy new {policy}`",
        ) from None

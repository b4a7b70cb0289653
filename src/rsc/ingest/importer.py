"""`import_source`: a source in, a staged data set version out, plaintext in memory only.

    source -> parts -> [read, gate, split] in one or more processes -> encrypt and append, in order
           -> the source is still what it was? -> commit (one rename) -> audit log

Everything that can go wrong leaves nothing behind: a version appears whole or not at all.

Not covered: swap (turn it off or encrypt it); the source file itself, which stays where it is; field
names, counts, the source's name and sizes are public in root.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rsc.audit.log import AuditLog
from rsc.clock import Clock, SystemClock
from rsc.config import Workspace
from rsc.ingest.config import ImportOptions
from rsc.ingest.detect import open_source
from rsc.ingest.facts import import_facts, report_notes, require_records, require_safeguard
from rsc.ingest.keys import new_data_key
from rsc.ingest.parts import PartResult, Plan
from rsc.ingest.progress import Progress, Silent
from rsc.ingest.screen import merge_reports
from rsc.ingest.source import Fingerprint
from rsc.ingest.workers import run_parts
from rsc.ingest.writing import Totals, schemas, write_part
from rsc.review.policy import parse_policy
from rsc.review.report import ReviewReport
from rsc.store.keys import KeyProvider
from rsc.store.local_keys import LocalKeyProvider
from rsc.store.root import check_name
from rsc.store.schema import Schema
from rsc.store.writer import DatasetRef, DatasetWriter

_SUBJECT_KEY = b"rsc-subject-1"  # HKDF info: the key of pseudonyms and of the subject codes in `findings`


@dataclass(frozen=True)
class ImportResult:
    """What became of a source. `bad` counts records in quarantine by reason; `splits` stored samples."""

    ref: DatasetRef
    report: ReviewReport
    splits: dict[str, int]
    num_read: int
    bad: dict[str, int]
    bad_places: tuple[str, ...]
    notes: dict[str, int]
    fields: dict[str, str]
    source_bytes: int
    seconds: float


def import_source(
    source: Path | str,
    *,
    name: str,
    workspace: Workspace,
    policy: bytes,
    author: str,
    options: ImportOptions | None = None,
    provider: KeyProvider | None = None,
    num_processes: int = 1,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Bring a source in as the next version of data set `name`, in state *in review*.

    `policy` is the TOML that the approvals will bind; `author` who brings the data in. Raises DataError
    (a source that cannot be read as what it claims to be, or changed meanwhile), GateRefused (the policy
    lacks a safeguard, or says reject), ResourceError (disk full); nothing is committed then.
    """
    clock, options = clock or SystemClock(), options or ImportOptions()
    started_s = clock.monotonic_s()
    check_name(name)
    rules = parse_policy(policy)
    reader = open_source(source, options=options)
    require_safeguard(rules, media=reader.media(), scan=options.scan)
    files = reader.files()
    fingerprint = Fingerprint.of(files)
    plan = Plan(name=name, source=reader, schema=Schema(reader.fields()), options=options, policy=rules)
    provider = provider or LocalKeyProvider(workspace.keys, clock=clock)
    envelope, key = new_data_key(provider, name=name, policy=rules, clock=clock)
    totals = Totals()
    with (
        key,
        key.derive(salt=b"", info=_SUBJECT_KEY) as subject_key,
        DatasetWriter.create(
            workspace.data, name=name, schemas=schemas(plan), key=key, envelope=envelope, clock=clock
        ) as writer,
    ):
        with closing(run_parts(plan, num_processes=num_processes, subject_key=subject_key)) as results:
            watched = _watched(
                results, totals=totals, progress=progress or Silent(), total_bytes=fingerprint.size_bytes
            )
            for result in watched:
                write_part(writer, result, totals=totals)
        fingerprint.check(files)
        require_records(totals, source=source)
        report = merge_reports(totals.reports, notes=report_notes(plan, totals=totals))
        facts = import_facts(plan, source=source, author=author, totals=totals, fingerprint=fingerprint)
        ref = writer.commit(policy=policy, report=report.to_json(), facts=facts)
    _log(workspace, ref=ref, author=author, totals=totals, clock=clock)
    return ImportResult(
        ref=ref,
        report=report,
        splits=dict(totals.samples),
        num_read=totals.num_read,
        bad=dict(totals.bad),
        bad_places=tuple(totals.bad_places),
        notes=dict(totals.notes),
        fields={item.name: item.kind for item in plan.schema.fields},
        source_bytes=fingerprint.size_bytes,
        seconds=clock.monotonic_s() - started_s,
    )


def _watched(
    results: Iterable[PartResult], *, totals: Totals, progress: Progress, total_bytes: int
) -> Iterator[PartResult]:
    done_bytes = 0
    try:
        for result in results:
            yield result
            done_bytes += result.size_bytes
            progress.update(done_bytes=done_bytes, total_bytes=total_bytes, num_records=totals.num_read)
    finally:
        progress.finish()


def _log(workspace: Workspace, *, ref: DatasetRef, author: str, totals: Totals, clock: Clock) -> None:
    AuditLog.open(workspace.audit, clock=clock).append(
        "import",
        data=ref.name,
        version=ref.version,
        root_hash=ref.root_hash,
        author=author,
        records=totals.num_read,
        stored=totals.samples.total(),
        findings=sum(report.findings for report in totals.reports),
        quarantined=totals.bad.total(),
    )

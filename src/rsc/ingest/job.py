"""One import from begin to end: resume or start, write every part, check the source, commit, log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.errors import IntegrityError, KeyUnavailable, ResourceError
from rsc.ingest.append import Base, copied_key
from rsc.ingest.keys import new_data_key
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.progress import Progress
from rsc.ingest.provenance import import_facts, report_notes, require_records
from rsc.ingest.readers.source import Fingerprint, NarrowTypes, SourceFile
from rsc.ingest.readers.tables.typed_columns import to_store
from rsc.ingest.resume import Position, find_interrupted, import_id
from rsc.ingest.sink import Totals, Unpacked, schemas, write_part
from rsc.ingest.tokenize import TOKENIZER_SCHEMA, TOKENIZER_SPLIT
from rsc.ingest.workers import run_parts
from rsc.keys.envelope import Envelope, KeyProvider, data_key_context, new_envelope, open_envelope
from rsc.keys.secret import SecretKey
from rsc.review.public_text import public_text
from rsc.review.report import ReviewReport
from rsc.store.format.schema import Field
from rsc.store.format.suites import Suite, suite_for
from rsc.store.writer import DatasetRef, DatasetWriter

_SUBJECT_KEY = b"rsc-subject-1"  # HKDF info: the key of pseudonyms and of the subject codes in `findings`


@dataclass(frozen=True)
class ImportResult:
    """What became of a source. `bad` counts records in quarantine by reason; `splits` stored samples."""

    ref: DatasetRef
    report: ReviewReport
    splits: dict[str, int]
    num_read: int
    num_resumed: int
    """Of `num_read`, records that an interrupted attempt had stored already."""
    bad: dict[str, int]
    bad_places: tuple[str, ...]
    notes: dict[str, int]
    fields: tuple[Field, ...]
    kind: str
    """The format that the source was read as."""
    names: dict[str, str]
    """Stored name -> name in the source, of fields that are called otherwise there."""
    is_surveyed: bool
    """Whether the first records told too little of the types, and the whole source was read for them."""
    source_bytes: int
    seconds: float
    left_out: dict[str, int] = field(default_factory=dict)
    """Records that `where`, `sample` and `dedup` left out, by reason."""
    is_limited: bool = False
    """Whether the import ended at its limit: what follows was not read."""
    appended_to: int | None = None
    """The version whose records `splits` count, too."""
    taken: tuple[tuple[str, str], ...] = ()
    """What in the source was taken for what."""


@dataclass(frozen=True)
class ImportJob:
    """One import with everything it needs."""

    plan: ImportPlan
    title: str
    author: str
    policy: bytes
    files: Sequence[SourceFile]
    fingerprint: Fingerprint
    workspace: Workspace
    provider: KeyProvider
    num_processes: int
    clock: Clock
    progress: Progress
    checkpoint_bytes: int
    base: Base | None = None
    """The version that is added to."""

    def run(self) -> ImportResult:
        started_s = self.clock.monotonic_s()
        wanted = import_id(
            self.plan,
            fingerprint=self.fingerprint,
            policy=self.policy,
            workspace=self.workspace,
            base=None if self.base is None else self.base.dataset.root_hash,
        )
        if self.base is not None:
            self.base.require_newest(self.workspace.bulk)
            self.base.require_fit(self.plan, policy=self.policy)
        begun = self._resumed(wanted) or self._fresh(wanted)
        with begun.key, self._subject_key(begun) as subject_key:
            try:
                if self.base is not None and not begun.start.next_part:
                    self.base.copy(begun.writer, totals=begun.totals)
                self._write(begun, subject_key=subject_key)
                ref = self._commit(begun)
            except (KeyboardInterrupt, ResourceError):
                begun.writer.suspend()
                find_interrupted(
                    self.workspace.bulk, name=self.plan.name, wanted=wanted
                )  # nothing saved: removed
                raise
            except BaseException:
                begun.writer.abort()
                raise
        self._log(ref, totals=begun.totals)
        return self._result(ref, begun, seconds=self.clock.monotonic_s() - started_s)

    def _resumed(self, wanted: str) -> _Begun | None:
        """The interrupted import, when there is one and its key still opens."""
        found = find_interrupted(self.workspace.bulk, name=self.plan.name, wanted=wanted)
        if found is None:
            return None
        unfinished, position = found
        if position.is_surveyed and not self.plan.is_surveyed:
            raise NarrowTypes("the interrupted import had found wider types")
        try:
            context = data_key_context(self.plan.name)
            key = open_envelope(self.provider, unfinished.envelope(), context=context)
            writer = DatasetWriter.resume(unfinished, key=key, clock=self.clock, suite=self._suite())
        except (KeyUnavailable, IntegrityError):
            unfinished.remove()
            return None
        return _Begun(writer, key, position)

    def _subject_key(self, begun: _Begun) -> SecretKey:
        """One for both halves, where there are two."""
        if self.base is not None:
            return copied_key(self.base.subject_key)
        return begun.key.derive(salt=b"", info=_SUBJECT_KEY)

    def _data_key(self) -> tuple[Envelope, SecretKey]:
        """Under the key of the version that is added to: what is added lives as long as that would have."""
        name = self.plan.name
        if self.base is None:
            return new_data_key(self.provider, name=name, policy=self.plan.policy, clock=self.clock)
        kek_id = self.base.dataset.envelope().kek_id
        return new_envelope(self.provider, kek_id=kek_id, context=data_key_context(name), clock=self.clock)

    def _fresh(self, wanted: str) -> _Begun:
        name = self.plan.name
        envelope, key = self._data_key()
        writer = DatasetWriter.create(
            self.workspace.bulk,
            name=name,
            schemas=schemas(self.plan) if self.base is None else self.base.schemas(schemas(self.plan)),
            key=key,
            envelope=envelope,
            clock=self.clock,
            suite=self._suite(),
        )
        position = Position(wanted, 0, 0, Totals(), is_surveyed=self.plan.is_surveyed)
        writer.checkpoint(position.to_dict())  # marks the folder as ours, should we be killed
        return _Begun(writer, key, position)

    def _suite(self) -> Suite:
        return suite_for(self.plan.policy.cipher_or(self.workspace.settings.store.cipher))

    def _write(self, begun: _Begun, *, subject_key: SecretKey) -> None:
        """Every part that is left. Raises DataError when the source changed meanwhile."""
        start, totals = begun.start, begun.totals
        done_bytes = saved_bytes = start.done_bytes
        unpacked = Unpacked(self.fingerprint)
        results = run_parts(
            self.plan, first_part=start.next_part, num_processes=self.num_processes, subject_key=subject_key
        )
        try:
            self._tell(done_bytes, totals)
            for result in results:
                write_part(begun.writer, unpacked.within_limits(result), totals=totals)
                done_bytes += result.size_bytes
                if done_bytes - saved_bytes >= self.checkpoint_bytes:
                    position = replace(start, next_part=result.number + 1, done_bytes=done_bytes)
                    begun.writer.checkpoint(position.to_dict())
                    saved_bytes = done_bytes
                self._tell(done_bytes, totals)
        finally:
            results.close()
            self.progress.finish()
        self.fingerprint.check(self.files)

    def _tell(self, done_bytes: int, totals: Totals) -> None:
        self.progress.update(
            done_bytes=done_bytes, total_bytes=self.fingerprint.size_bytes, num_records=totals.num_read
        )

    def _commit(self, begun: _Begun) -> DatasetRef:
        totals = begun.totals
        before = 0 if self.base is None else sum(self.base.samples.values())
        require_records(totals, source=self.title, num_before=before)
        if self.plan.tokenizer_json is not None:
            begun.writer.append(
                TOKENIZER_SPLIT, to_store(TOKENIZER_SCHEMA, {"json": [self.plan.tokenizer_json]})
            )
        facts = import_facts(
            self.plan, source=self.title, author=self.author, totals=totals, fingerprint=self.fingerprint
        )
        if self.base is not None:
            facts = self.base.facts(facts)
        self._require_key(begun)
        return begun.writer.commit(policy=self.policy, report=self._report(totals).to_json(), facts=facts)

    def _require_key(self, begun: _Begun) -> None:
        """Raises KeyUnavailable where the key ended meanwhile: somebody expired the data on another machine,
        and a version that nobody can open would stand there as new."""
        open_envelope(self.provider, begun.writer.envelope, context=data_key_context(self.plan.name)).close()

    def _report(self, totals: Totals) -> ReviewReport:
        assert totals.report is not None, "a source with records has a report"
        added = replace(totals.report, notes=tuple(report_notes(self.plan, totals=totals)))
        return added if self.base is None else self.base.report(added)

    def _log(self, ref: DatasetRef, *, totals: Totals) -> None:
        AuditLog.open(self.workspace.audit, clock=self.clock).append(
            "import",
            data=ref.name,
            version=ref.version,
            root_hash=ref.root_hash,
            author=self.author,
            records=totals.num_read,
            stored=totals.samples.total(),
            findings=totals.num_findings,
            quarantined=totals.bad.total(),
            left_out=totals.left_out.total(),
            **({} if self.base is None else {"appended_to": self.base.dataset.root_hash}),
        )

    def _result(self, ref: DatasetRef, begun: _Begun, *, seconds: float) -> ImportResult:
        totals = begun.totals
        return ImportResult(
            ref=ref,
            report=self._report(totals),
            splits=dict(totals.samples),
            num_read=totals.num_read,
            num_resumed=begun.num_resumed,
            bad=dict(totals.bad),
            bad_places=tuple(totals.bad_places),
            notes=dict(totals.notes),
            left_out=dict(totals.left_out),
            is_limited=self.plan.selection.left_out.stop is not None,
            fields=self.plan.stored_schema.fields,
            kind=self.plan.source.kind,
            names={name: _printable(source) for name, source in self.plan.source.names().items()},
            is_surveyed=self.plan.is_surveyed,
            source_bytes=self.fingerprint.size_bytes,
            seconds=seconds,
            appended_to=None if self.base is None else self.base.dataset.version,
            taken=tuple(self.plan.source.taken()),
        )


def _printable(name: str) -> str:
    """A name as its source has it, for whoever imports: nothing personal, and nothing that moves a cursor."""
    return "".join(character if character.isprintable() else "?" for character in public_text(name))


class _Begun:
    """A writer with its key, where it started, and the totals that grow from there."""

    def __init__(self, writer: DatasetWriter, key: SecretKey, start: Position) -> None:
        self.writer = writer
        self.key = key
        self.start = start
        self.totals = start.totals
        self.num_resumed = start.totals.num_read

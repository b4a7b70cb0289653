"""`import_source` and `import_columns`: data in, a staged version out, plaintext in memory only.

    source -> parts -> [read, gate, split] in one or more processes -> encrypt and append, in order
           -> the source is still what it was? -> commit (one rename) -> audit log

Everything that can go wrong leaves nothing behind: a version appears whole or not at all.

Not covered: swap (turn it off or encrypt it); the source file itself, which stays where it is; field
names, counts, the source's name and sizes are public in root.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rsc.clock import Clock, SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.append import Base
from rsc.ingest.config import ImportOptions
from rsc.ingest.holdout import TRAIN
from rsc.ingest.job import ImportJob, ImportResult
from rsc.ingest.map_part import ImportPlan, PartResult
from rsc.ingest.parse_limits import bounded_memory
from rsc.ingest.progress import Progress, Silent
from rsc.ingest.provenance import require_region_field, require_safeguard
from rsc.ingest.readers.arrays import Batch, open_columns
from rsc.ingest.readers.detect import left_out, open_source
from rsc.ingest.readers.elsewhere.opening import is_elsewhere, open_elsewhere
from rsc.ingest.readers.elsewhere.pipe import STANDARD_INPUT
from rsc.ingest.readers.source import Fingerprint, NarrowTypes, Source
from rsc.ingest.resume import CHECKPOINT_BYTES
from rsc.ingest.select import open_selection
from rsc.ingest.tokenize import train_bpe, write_tokenizer
from rsc.ingest.workers import PART_BYTES, run_parts
from rsc.keys.providers.configured import default_provider
from rsc.keys.secret import SecretKey
from rsc.review.policy import parse_policy
from rsc.review.public_text import WITHHELD, is_public, public_errors, public_text
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Ragged
from rsc.store.format.reserved_names import check_new_name
from rsc.store.format.schema import Field, Schema
from rsc.store.staging import only_writer
from rsc.tokenizer_json import read_tokenizer

_SMALL_BYTES = 2 << 20  # scanned by RE2 in the half second that the fastest engine needs to get ready


@public_errors()
def import_source(
    source: Path | str,
    *,
    name: str,
    workspace: Workspace,
    policy: bytes,
    author: str,
    options: ImportOptions | None = None,
    num_processes: int = 1,
    clock: Clock | None = None,
    progress: Progress | None = None,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    base: Base | None = None,
) -> ImportResult:
    """Bring a source in as the next version of data set `name`, in state *in review*.

    `policy` is the TOML that the approvals will bind; `author` who brings the data in. The key comes from the
    provider that keys/providers.toml of the workspace puts first. Raises DataError
    (a source that cannot be read as what it claims to be, or changed meanwhile), GateRefused (the policy
    lacks a safeguard, or says reject), ResourceError (disk full); nothing is committed then. After
    ResourceError, Ctrl-C or a kill the same call goes on from its last checkpoint. With `base` the version
    also holds all records of that one (append.py), whose policy it must have.
    """
    check_new_name(name, what="data set")
    options = options or ImportOptions()
    with bounded_memory():
        if is_elsewhere(source):
            reader, notes = open_elsewhere(str(source), options=options, folder=workspace.root)
        else:
            reader = open_source(source, options=options)
            notes = left_out(source, reader=reader)
    return _run(
        reader,
        notes=notes,
        title=public_text(reader.files()[0].name if str(source) == STANDARD_INPUT else Path(source).name),
        name=name,
        workspace=workspace,
        policy=policy,
        author=author,
        options=options,
        num_processes=num_processes,
        clock=clock,
        progress=progress,
        checkpoint_bytes=checkpoint_bytes,
        base=base,
    )


@public_errors()
def import_columns(
    columns: Batch | Iterable[Batch],
    *,
    name: str,
    workspace: Workspace,
    policy: bytes,
    author: str,
    options: ImportOptions | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
    base: Base | None = None,
) -> ImportResult:
    """As `import_source`, for data in memory: one batch of columns, or an iterable of batches.

    A batch maps field names to numpy arrays [n, ...], `Ragged`, lists of str or bytes, or is a pyarrow
    Table or RecordBatch. Text passes the gate like any other. Nothing is held out unless the options say
    so. Cannot be resumed.
    """
    check_new_name(name, what="data set")
    options = options or ImportOptions(holdout=0.0)
    return _run(
        open_columns(columns, options=options),
        notes={},
        title="columns",
        name=name,
        workspace=workspace,
        policy=policy,
        author=author,
        options=options,
        num_processes=1,
        clock=clock,
        progress=progress,
        checkpoint_bytes=CHECKPOINT_BYTES,
        base=base,
    )


def _run(
    reader: Source,
    *,
    notes: dict[str, int],
    title: str,
    name: str,
    workspace: Workspace,
    policy: bytes,
    author: str,
    options: ImportOptions,
    num_processes: int,
    clock: Clock | None,
    progress: Progress | None,
    checkpoint_bytes: int,
    base: Base | None,
) -> ImportResult:
    clock = clock or SystemClock()
    rules = parse_policy(policy)
    files = reader.files()
    fingerprint = Fingerprint.of(files)
    with bounded_memory():
        schema = Schema(reader.fields())
    plan = ImportPlan(
        name=name,
        source=reader,
        schema=schema,
        options=options,
        policy=rules,
        source_bytes=fingerprint.size_bytes,
        engine="re2" if 0 < fingerprint.size_bytes < _SMALL_BYTES else "auto",
        holdout_key=_holdout_key(workspace, name),
        notes=notes,
    )
    require_safeguard(rules, media=reader.media(), bytes_fields=plan.bytes_fields, scan=options.scan)
    require_region_field(rules, fields=plan.text_fields)
    for split in plan.splits:
        check_new_name(split, what="split")
    is_small = options.part_bytes is None and fingerprint.size_bytes < PART_BYTES

    def attempt(plan: ImportPlan) -> ImportResult:
        _require_public(plan.schema)
        plan = _with_selection(plan, num_processes=1 if is_small else num_processes)
        plan = replace(plan, notes={**plan.notes, **_withheld(plan.schema.fields)})
        job = ImportJob(
            plan=_with_tokenizer(plan),
            title=title,
            author=author,
            policy=policy,
            files=files,
            fingerprint=fingerprint,
            workspace=workspace,
            provider=default_provider(workspace.keys, clock=clock),
            num_processes=1 if is_small else num_processes,
            clock=clock,
            progress=progress or Silent(),
            checkpoint_bytes=checkpoint_bytes,
            base=base,
        )
        with only_writer(workspace.data / name):
            return job.run()

    try:
        return attempt(plan)
    except NarrowTypes:  # docs/decisions/0013
        with bounded_memory():
            whole = reader.surveyed()
        return attempt(replace(plan, source=whole, schema=Schema(whole.fields()), is_surveyed=True))


def _with_selection(plan: ImportPlan, *, num_processes: int) -> ImportPlan:
    """The plan with what it takes; where that depends on the records before, the source is read for it."""
    selection = open_selection(plan.source, plan.schema, options=plan.options)
    if not selection.looks_back:
        return replace(plan, selection=selection)
    if plan.source.is_once:
        raise ConfigError(
            "dedup and limit read the source twice, and this one can be read once only",
            hint="give a list of batches, or a file",
        )
    looking = replace(plan, selection=selection, is_for_contents=True)
    with SecretKey.generate() as unused:
        results = run_parts(looking, num_processes=num_processes, subject_key=unused)
        with closing(results):
            left_out = selection.find_left_out(content for result in results for content in result.contents)
    return replace(plan, selection=replace(selection, left_out=left_out))


def _withheld(fields: Sequence[Field]) -> dict[str, int]:
    count = sum(item.name.startswith(WITHHELD) for item in fields)
    return {f"fields whose names hold personal data, stored as {WITHHELD}1, ...": count} if count else {}


def _require_public(schema: Schema) -> None:
    """Readers withhold names of fields; this is for one that does not, and for columns in memory."""
    for number, item in enumerate(schema.fields, start=1):
        if not is_public(item.name):
            raise DataError(
                f"the name of field {number} holds personal data, and names are stored in the open",
                hint="rename it in the source",
            )


def _holdout_key(workspace: Workspace, name: str) -> str:
    """That of the set's newest version: what it held out must not be trained on in the next one. Raises
    IntegrityError where that version cannot say."""
    try:
        before = Dataset.open(workspace.bulk, name=name)
    except ConfigError:  # there is none yet
        return ""
    return str(before.facts.get("holdout_key", name))


def _with_tokenizer(plan: ImportPlan) -> ImportPlan:
    """The plan with the tokenizer that its options name, trained first where they say so."""
    if plan.options.tokenizer is None:
        return plan
    if all(item.name != "text" for item in plan.schema.fields):
        raise ConfigError("a tokenizer was given, but no field is text", hint="say which with --text-field")
    path = Path(plan.options.tokenizer)
    if plan.options.vocabulary is not None and not path.exists():
        with SecretKey.generate() as throwaway:
            results = run_parts(plan, num_processes=1, subject_key=throwaway)
            write_tokenizer(path, train_bpe(_train_texts(results), vocabulary=plan.options.vocabulary))
    tokenizer = read_tokenizer(path)
    notes = {**plan.notes, **{f"tokenizer: {note}": 1 for note in tokenizer.notes}}
    return replace(plan, tokenizer_json=tokenizer.text, notes=notes)


def _train_texts(results: Iterable[PartResult]) -> Iterator[str]:
    """Redacted texts of the training split."""
    for result in results:
        column = result.columns.get(TRAIN, {}).get("text")
        if isinstance(column, Ragged):
            yield from (bytes(column[row]).decode() for row in range(len(column)))

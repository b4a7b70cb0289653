"""What `rsc data` verbs print: a record for programs, and the same as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rsc.cli.output import table
from rsc.clock import timestamp
from rsc.ingest.job import ImportResult
from rsc.loader.config import DataConfig
from rsc.loader.order import read_amplification
from rsc.loader.shuffle_quality import ShuffleQuality, can_be_packed, measure_split
from rsc.release.agent.decision import DataFacts
from rsc.review.policy import Policy
from rsc.store.dataset import Dataset
from rsc.store.format.reserved_names import SIDECARS
from rsc.store.format.schema import Field
from rsc.store.verify import VerifyReport
from rsc.units import format_bytes, format_seconds

_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
"""Numbers of data-parallel ranks that `rsc data show` tells about."""

SINGLE_PERSON = "single-person mode: whoever imported this data may approve it alone"


def import_record(result: ImportResult) -> dict[str, Any]:
    return {
        "data": result.ref.name,
        "version": result.ref.version,
        "root_hash": result.ref.root_hash,
        "records": result.num_read,
        "splits": result.splits,
        "fields": {item.name: field_kind(item) for item in result.fields},
        "source_names": result.names,
        "format": result.kind,
        "types_of_whole_source": result.is_surveyed,
        "resumed": result.num_resumed,
        "findings": result.report.findings,
        "by_type": result.report.by_type(),
        "dropped": result.report.records_dropped,
        "quarantined": {"reasons": result.bad, "places": list(result.bad_places)},
        "notes": result.notes,
        "left_out": result.left_out,
        "ended_at_limit": result.is_limited,
        "taken": [list(pair) for pair in result.taken],
        "source_bytes": result.source_bytes,
        "seconds": round(result.seconds, 3),
    }


def import_text(result: ImportResult, *, policy: Policy) -> str:
    """What became of the source, in a few lines."""
    ref, rate = result.ref, result.source_bytes / max(result.seconds, 1e-9)
    splits = ", ".join(f"{count:,} {split}" for split, count in result.splits.items())
    lines = [
        f"{ref.name} version {ref.version}: {result.num_read:,} records read, stored as {splits}",
        *_field_lines(result),
        *(f"taken: {what} as {became}" for what, became in result.taken),
        f"found: {_counts(result.report.by_type()) or 'nothing of what is looked for'}",
        *(f"left out: {count:,} records by {reason}" for reason, count in result.left_out.items()),
        *(["ended at the limit; nothing behind it was read"] if result.is_limited else []),
        *(f"note: {count:,} x {note}" for note, count in result.notes.items()),
        *_bad_lines(result),
        *(
            [f"{result.num_resumed:,} records were stored by an interrupted attempt"]
            if result.num_resumed
            else []
        ),
        f"{format_bytes(result.source_bytes)} in {format_seconds(result.seconds)} ({format_bytes(rate)}/s)",
    ]
    lines += _advice({item.name: item.kind for item in result.fields})
    if policy.single_person:
        lines.append(SINGLE_PERSON)
    return "\n".join(lines)


def _field_lines(result: ImportResult) -> Iterator[str]:
    """What was taken for what: the format, and each field with its type and its name in the source."""
    yield f"read as {result.kind}, with these fields:"
    rows = [(item.name, field_kind(item), result.names.get(item.name, item.name)) for item in result.fields]
    yield table(rows, header=("field", "type", "in the source"))
    if result.is_surveyed:
        yield "types hold for all records; those of the first ones did not (docs/import/README.md#types)"


def _advice(kinds: Mapping[str, str]) -> Iterator[str]:
    """What a newcomer may have missed, by what the fields lack."""
    media = [name for name in ("image", "audio") if name in kinds]
    unread = [name for name in media if kinds[name] == "string"]
    if unread:
        yield f"field {unread[0]} is text: JSON lines and tables hold no {unread[0]}; use a folder or Parquet"
    elif media:
        if "label" not in kinds:
            yield "no labels: class folders give them, or names with label_pattern={label}_{speaker}_{index}"
    elif "text" not in kinds and "string" in kinds.values():
        yield "no field is called text: --text-field NAME says which one a language model reads"


def field_kind(item: Field) -> str:
    """`string`, `int64`, `int64?` where values may be missing, `uint8[32x32x3]`, `uint16 tokens`."""
    if item.kind in ("string", "bytes"):
        return item.kind
    shape = "x".join(map(str, item.shape))
    if item.kind == "tokens":
        return f"{item.dtype} tokens"
    return f"{item.dtype}[{shape}]" if shape else item.dtype + ("" if item.missing is None else "?")


def version_record(dataset: Dataset) -> dict[str, Any]:
    return {"data": dataset.name, "version": dataset.version, "root_hash": dataset.root_hash}


def state_record(dataset: Dataset, facts: DataFacts) -> dict[str, Any]:
    """A version and where its review stands."""
    samples = {name: split.num_samples for name, split in dataset.splits.items()}
    return {
        **version_record(dataset),
        "state": facts.review.state,
        "reason": facts.review.reason,
        "approvers": list(facts.review.approvers),
        "approved_until": facts.review.expires,
        "single_person": facts.review.single_person,
        "author": dataset.facts.get("author"),
        "created": timestamp(dataset.created),
        "kept_until": timestamp(facts.retained_until),
        "samples": samples,
        "size_bytes": sum(split.size_bytes for split in dataset.splits.values()),
    }


def ls_text(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "no data sets yet"
    rows = [
        (
            record["data"],
            f"v{record['version']}",
            _stands(record),
            f"{_data_samples(record['samples']):,}",
            format_bytes(record["size_bytes"]),
            record["kept_until"][:10],
        )
        for record in records
    ]
    return table(rows, header=("data set", "version", "review", "samples", "stored", "kept until"))


def _stands(record: Mapping[str, Any]) -> str:
    """What decides whether the data can be used, in a few words."""
    if record["key"] == "destroyed":
        return "expired: key destroyed"
    return str(record["state"]).replace("_", " ") + (" (single person)" if record["single_person"] else "")


def show_record(dataset: Dataset, facts: DataFacts, *, key_state: str) -> dict[str, Any]:
    """Everything public about a version."""
    envelope = dataset.envelope()
    shuffles = dict(_shuffles(dataset))
    return {
        **state_record(dataset, facts),
        "splits": {
            name: {
                "samples": split.num_samples,
                "shards": split.num_shards,
                "frames": split.num_frames,
                "size_bytes": split.size_bytes,
                "fields": {item.name: field_kind(item) for item in split.schema.fields},
            }
            for name, split in dataset.splits.items()
        },
        "key": {
            "provider": envelope.provider,
            "kek_id": envelope.kek_id,
            "state": key_state,
            "wrapped": timestamp(envelope.created),
        },
        "facts": dataset.facts,
        "shuffle": {
            name: {**asdict(quality), "told": quality.explain()} for name, quality in shuffles.items()
        },
        "reads": {
            name: {"by_ranks": _amplifications(quality.lanes), "told": _reads_text(quality.lanes)}
            for name, quality in shuffles.items()
            if quality.packing is None
        },
    }


def _shuffles(dataset: Dataset) -> Iterator[tuple[str, ShuffleQuality]]:
    """How well the loader's window mixes the split trained on, and rows packed of it; needs no key."""
    split = dataset.splits.get("train")
    if split is None or not split.num_samples:
        return
    yield "train", measure_split(dataset, "train")
    if can_be_packed(split.schema):
        length = int(DataConfig.model_fields["sequence_length"].default)
        yield "train, packed", measure_split(dataset, "train", sequence_length=length)


def _amplifications(lanes: int) -> dict[str, int]:
    """How often each frame is read, by the number of data-parallel ranks."""
    return {str(ranks): read_amplification(lanes, world_size=ranks) for ranks in _RANKS}


_MAX_TOLD = 4


def _reads_text(lanes: int) -> str:
    """`_amplifications` as a sentence: which numbers of ranks read a frame once, twice, ..."""
    by_times: dict[int, list[str]] = {}
    for ranks, times in _amplifications(lanes).items():
        by_times.setdefault(times, []).append(ranks)
    told = [
        f"{'once' if times == 1 else f'{times} times'} by {', '.join(ranks)}"
        for times, ranks in sorted(by_times.items())
    ]
    if len(told) > _MAX_TOLD:
        told[_MAX_TOLD - 1 :] = ["...", told[-1]]
    return f"{lanes} lanes: a frame is read {'; '.join(told)} data-parallel ranks"


def show_text(record: Mapping[str, Any]) -> str:
    splits = [
        (
            name,
            f"{split['samples']:,}",
            split["shards"],
            format_bytes(split["size_bytes"]),
            "-" if name in SIDECARS else _fields(split["fields"]),
        )
        for name, split in record["splits"].items()
    ]
    facts, key = record["facts"], record["key"]
    shuffle = [f"shuffle of {name}: {quality['told']}" for name, quality in record["shuffle"].items()]
    reads = [f"reads of {name}: {times['told']}" for name, times in record["reads"].items()]
    source = facts.get("source", {})
    lines = [
        state_line(record),
        f"imported {record['created']} by {record['author']}, kept until {record['kept_until']}",
        f"source: {source.get('name')} ({source.get('kind')}, {format_bytes(source.get('size_bytes', 0))})",
        f"key: {key['kek_id']} ({key['provider']}, {key['state']})",
        f"root: {record['root_hash']}",
        *section("splits", [table(splits, header=("split", "samples", "shards", "stored", "fields"))]),
        *section("order", [f"  {line}" for line in (*shuffle, *reads)]),
        *section("notes", [f"  {count:,} x {note}" for note, count in facts.get("notes", {}).items()]),
    ]
    return "\n".join(lines)


def verify_record(dataset: Dataset, report: VerifyReport) -> dict[str, Any]:
    return {
        **version_record(dataset),
        "is_good": report.is_good,
        "shards": report.num_shards,
        "size_bytes": report.size_bytes,
        "frames_authenticated": report.frames_authenticated,
        "problems": [
            {"path": problem.path, "outcome": problem.outcome, "message": problem.message}
            for problem in report.problems
        ],
    }


def verify_text(record: Mapping[str, Any]) -> str:
    verdict = "is what its root says" if record["is_good"] else "is NOT what its root says"
    frames = f"{record['frames_authenticated']} frames authenticated"
    if not record["frames_authenticated"]:
        frames = "by hash; --with-key also authenticates every frame"
    what = f"{record['shards']} shards, {format_bytes(record['size_bytes'])}, {frames}"
    head = f"{record['data']} version {record['version']} {verdict}: {what}"
    return "\n".join([head, *(f"  {p['path']}: {p['outcome']}: {p['message']}" for p in record["problems"])])


def state_line(record: Mapping[str, Any]) -> str:
    single = f" [{SINGLE_PERSON}]" if record["single_person"] else ""
    state = record["state"].replace("_", " ")
    return f"{record['data']} version {record['version']}: {state}, {record['reason']}{single}"


def section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *lines] if any(lines) else []


def _bad_lines(result: ImportResult) -> Iterator[str]:
    if result.bad:
        places = ", ".join(result.bad_places[:5]) + (", ..." if sum(result.bad.values()) > 5 else "")
        yield f"quarantined (encrypted, split quarantine): {_counts(result.bad)}; {places}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {name}" for name, count in counts.items())


def _fields(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name}:{kind}" for name, kind in fields.items())


def _data_samples(samples: Mapping[str, int]) -> int:
    return sum(count for split, count in samples.items() if split not in SIDECARS)

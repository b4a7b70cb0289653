"""What `rsc data` verbs print for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rsc.api.imports import Imported
from rsc.api.label_counts import LabelCounts
from rsc.cli.output import table
from rsc.store.format.reserved_names import SIDECARS
from rsc.units import format_bytes, format_seconds
from rsc.untrusted import printable

SINGLE_PERSON = "single-person mode: whoever imported this data may approve it alone"


def import_text(done: Imported) -> str:
    """What became of the source, in a few lines."""
    rate = done.source_bytes / max(done.seconds, 1e-9)
    splits = ", ".join(f"{count:,} {split}" for split, count in done.splits.items())
    lines = [
        f"{done.data} version {done.version}: {done.records:,} records read, stored as {splits}",
        *(
            [f"added to version {done.appended_to}, whose records are counted there; review it anew"]
            if done.appended_to is not None
            else []
        ),
        *_field_lines(done),
        *(f"left out: {count:,} records by {reason}" for reason, count in done.left_out.items()),
        *(["ended at the limit; nothing behind it was read"] if done.ended_at_limit else []),
        *(f"taken: {what} as {became}" for what, became in done.taken),
        f"found: {_counts(done.by_type) or 'nothing of what is looked for'}",
        *(f"note: {count:,} x {note}" for note, count in done.notes.items()),
        *_bad_lines(done),
        *([f"{done.resumed:,} records were stored by an interrupted attempt"] if done.resumed else []),
        f"{format_bytes(done.source_bytes)} in {format_seconds(done.seconds)} ({format_bytes(rate)}/s)",
    ]
    lines += _advice(done.fields)
    lines += _one_side(done.splits)
    lines.append(
        f"kept until {done.kept_until[:10]}, then its key is destroyed; an approval counts for "
        f"{done.approval_valid}"
    )
    if done.single_person:
        lines.append(SINGLE_PERSON)
    return "\n".join(lines)


def _field_lines(done: Imported) -> Iterator[str]:
    """What was taken for what: the format, and each field with its type and its name in the source."""
    yield f"read as {done.format}, with these fields:"
    rows = [(name, kind, done.source_names.get(name, name)) for name, kind in done.fields.items()]
    yield table(rows, header=("field", "type", "in the source"))
    if done.types_of_whole_source:
        yield "types hold for all records; those of the first ones did not (docs/import/README.md#types)"


def _one_side(splits: Mapping[str, int]) -> Iterator[str]:
    """A split without samples beside one that has some."""
    empty = [name for name in ("train", "validation") if splits.get(name) == 0]
    if empty and any(splits.values()):
        yield (
            f"warning: split {empty[0]} has no samples; equal records are held out together: "
            "import more data, or with --holdout SHARE"
        )


def _advice(fields: Mapping[str, str]) -> Iterator[str]:
    """What a newcomer may have missed, by what the fields lack."""
    media = [name for name in ("image", "audio") if name in fields]
    unread = [name for name in media if fields[name] == "string"]
    if unread:
        yield f"field {unread[0]} is text: JSON lines and tables hold no {unread[0]}; use a folder or Parquet"
    elif media:
        if "label" not in fields:
            yield "no labels: class folders give them, or names with label_pattern={label}_{speaker}_{index}"
    elif "text" not in fields and "string" in fields.values():
        yield "no field is called text: --text-field NAME says which one a language model reads"


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
        *section("labels", list(_label_lines(record["labels"] or {}))),
        *section("order", [f"  {line}" for line in (*shuffle, *reads)]),
        *section("notes", [f"  {count:,} x {note}" for note, count in facts.get("notes", {}).items()]),
    ]
    return "\n".join(lines)


def _label_lines(labels: LabelCounts) -> Iterator[str]:
    for split, fields in labels.items():
        for field, counts in fields.items():
            told = (f"{count:,} x {printable(label, keep='')}" for label, count in counts.items())
            yield f"  {split}, {field}: {', '.join(told)}"


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


def _bad_lines(done: Imported) -> Iterator[str]:
    reasons, places = done.quarantined["reasons"], done.quarantined["places"]
    if reasons:
        more = ", ..." if sum(reasons.values()) > 5 else ""
        yield f"quarantined (encrypted, split quarantine): {_counts(reasons)}; {', '.join(places[:5])}{more}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {name}" for name, count in counts.items())


def _fields(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name}:{kind}" for name, kind in fields.items())


def _data_samples(samples: Mapping[str, int]) -> int:
    return sum(count for split, count in samples.items() if split not in SIDECARS)

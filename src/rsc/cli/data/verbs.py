"""`rsc data ...`: bring data in, look at it, approve it, show it, take it away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.api import datasets, imports
from rsc.cli.data import end, review, text, verdicts
from rsc.cli.data.access import As, Name, Version
from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.errors import ConfigError
from rsc.ingest.config import ImportOptions
from rsc.layers import Resolved, parse_as
from rsc.review.benchmark.synthetic import planted_posts
from rsc.toml import parse_toml, parse_value

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


_OF_FIELDS = {"schema": "types", "where": "where"}
"""Settings that have a value for each field: `schema.id=int64`."""


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A file, folder or archive, s3://BUCKET/KEY, - for a pipe, or python-docs.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Further settings as key=value; docs/import/README.md lists them."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; else that of the source.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Privacy policy (TOML); a default one if left out.")
    ] = None,
    safeguard: Annotated[str, typer.Option(help="What protects people in what is not scanned.")] = "",
    source_format: Annotated[
        str | None, typer.Option("--format", help="How the source is written, if it cannot be told.")
    ] = None,
    text_field: Annotated[str | None, typer.Option(help="Which field is the text to train on.")] = None,
    fields: Annotated[str | None, typer.Option(help="Take only these fields: a,b,c.")] = None,
    holdout: Annotated[float | None, typer.Option(help="Share of records kept for evaluation.")] = None,
    schema: Annotated[Path | None, typer.Option(help='Types of fields (TOML): FIELD = "int64".')] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text, if it is not UTF-8.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes; one a core if left out.")] = None,
    append: Annotated[bool, typer.Option(help="Add to the newest version, as a new one to review.")] = False,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Scan, redact by policy and encrypt a source, in one pass. Plaintext never rests on disk.

    It goes to the data folder of the workspace, or to where config.toml says (docs/tiers.md).
    """
    flags: dict[str, Any] = {"format": source_format, "text_field": text_field, "holdout": holdout}
    flags["encoding"] = encoding
    flags["types"] = None if schema is None else _read_schema(schema)
    flags["fields"] = None if fields is None else tuple(part.strip() for part in fields.split(","))
    options = _options(flags, settings or [])
    try:
        done = imports.import_data(
            source,
            name=name,
            policy=policy,
            safeguard=safeguard,
            options=options,
            processes=processes,
            append=append,
            as_name=as_name,
        )
    except KeyboardInterrupt:
        say("interrupted: nothing was published; the same command goes on from its last checkpoint, if any")
        raise
    emit(done.to_json(), as_json=as_json, text="")
    if done.enrolled:
        say(f"enrolled {done.author}, who owns this workspace, as its first reviewer")
    say(text.import_text(done))
    next_commands(
        f"rsc data review {done.data}", f"rsc data show {done.data}", f"rsc data approve {done.data}"
    )


@app.command("plant")
def plant(
    target: Annotated[Path, typer.Argument(help="The .jsonl file of posts to write.")],
    truth: Annotated[Path, typer.Option(help="The file that takes the posts with what was planted where.")],
    records: Annotated[int, typer.Option(help="How many posts.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same posts.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Write posts with planted personal data (nobody's), and the truth about them."""
    with target.open("w") as posts, truth.open("w") as truths:
        for post in planted_posts(records, seed=seed):
            spans = [{"start": start, "end": end, "type": kind} for start, end, kind in post.spans]
            print(json.dumps({"id": post.id, "text": post.text}), file=posts)
            print(json.dumps({"id": post.id, "text": post.text, "spans": spans}), file=truths)
    emit({"path": str(target), "truth": str(truth), "records": records}, as_json=as_json, text="")
    say(f"wrote {records} posts to {target}, and what is planted in them to {truth}")
    name = imports.name_of(str(target))
    next_commands(("rsc", "data", "import", target), ("rsc", "data", "review", name, "--truth", truth))


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the data sets with where their newest version stands."""
    records = [found.to_json() for found in datasets.data_sets()]
    emit({"data": records}, as_json=as_json, text=text.ls_text(records))
    if not records:
        next_commands("rsc data import FILE", "rsc data import python-docs")


@app.command("show")
def show(
    name: Name,
    version: Version = None,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Read the data and count its labels; the key's release is logged."),
    ] = False,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Splits, fields, sizes, source, review and keys of a version."""
    record = datasets.data_set(name, version=version, labels=labels, as_name=as_name).to_json()
    emit(record, as_json=as_json, text=text.show_text(record))


@app.command("verify")
def verify(
    name: Name,
    with_key: Annotated[bool, typer.Option("--with-key", help="Also authenticate every frame.")] = False,
    version: Version = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every byte of a version again and check it against its root."""
    found = datasets.verify_data(name, version=version, with_key=with_key, as_name=as_name)
    record = found.to_json()
    emit(record, as_json=as_json, text=text.verify_text(record))
    if not found.is_good:
        raise typer.Exit(1)


def _options(flags: dict[str, Any], settings: Sequence[str]) -> ImportOptions:
    """Flags and key=value settings as one model. Raises ConfigError naming the key that is wrong."""
    values = {key: value for key, value in flags.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"{setting!r} is not key=value", hint="one source at a time; settings as key=value"
            )
        section, dot, field = key.strip().partition(".")
        if section in _OF_FIELDS and dot:
            of_fields = values.setdefault(_OF_FIELDS[section], {})
            if section == "where" and field in of_fields:
                raise ConfigError(f"{key} was given twice", hint="one condition a field")
            of_fields[field] = value.strip().strip("\"'")
        else:
            values[key.strip()] = parse_value(value.strip())
    origins = dict.fromkeys(values, "command line")
    return parse_as(ImportOptions, Resolved(name="rsc data import", values=values, provenance=origins))


def _read_schema(path: Path) -> dict[str, Any]:
    """The types that a file declares. Raises ConfigError for a file that is no TOML."""
    hint = 'a line a field: id = "int64"'
    try:
        return parse_toml(path.read_text(encoding="utf-8"), name=f"the schema {path}", hint=hint)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the schema {path}: {reason}", hint=hint) from None


app.command("review")(review.review)
app.command("approve")(verdicts.approve)
app.command("reject")(verdicts.reject)
app.command("policy")(review.policy)
app.command("expire")(end.expire_)
app.command("erase")(end.erase_)
app.command("trace")(end.trace_)

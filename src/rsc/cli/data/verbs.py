"""`rsc data ...`: bring data in, look at it, approve it, show it, take it away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.data import end, review, text, verdicts
from rsc.cli.data.access import As, Name, Version
from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.cluster.health.cpu import usable_cores
from rsc.config import Resolved, parse_as
from rsc.errors import ConfigError, RscError
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_source
from rsc.ingest.progress import ImportProgressLine
from rsc.keys.envelope import KeyProvider
from rsc.release.agent.custody import Custody
from rsc.release.record.reviewers import acting_name, author_name
from rsc.review.benchmark.synthetic import planted_posts
from rsc.review.policy import default_policy, parse_policy, policy_to_toml
from rsc.store.dataset import Dataset, list_datasets
from rsc.toml import parse_toml, parse_value

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


_OF_FIELDS = {"schema": "types", "where": "where"}
"""Settings that have a value for each field: `schema.id=int64`."""


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A file, folder or archive; or the word python-docs.")],
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
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Scan, redact by policy and encrypt a source, in one pass. Plaintext never rests on disk.

    It goes to the data folder of the workspace, or to where config.toml says (docs/tiers.md).
    """
    house = Custody.open()
    workspace, clock = house.workspace, house.clock
    flags = {"format": source_format, "text_field": text_field, "holdout": holdout, "encoding": encoding}
    flags["types"] = None if schema is None else _read_schema(schema)  # type: ignore[assignment]
    flags["fields"] = None if fields is None else tuple(part.strip() for part in fields.split(","))  # type: ignore[assignment]
    options = _options(flags, settings or [])
    is_first = not house.recorded.reviewers
    author = author_name(house, as_name)
    if is_first and house.recorded.reviewers:
        say(f"enrolled {author}, who owns this workspace, as its first reviewer")
    rules = _policy_bytes(house, path=policy, safeguard=safeguard)
    name = name or _name_of(source)
    try:
        result = import_source(
            source,
            name=name,
            workspace=workspace,
            policy=rules,
            author=author,
            options=options,
            num_processes=processes or usable_cores(),
            clock=clock,
            progress=ImportProgressLine(clock=clock),
        )
    except KeyboardInterrupt:
        say("interrupted: nothing was published; the same command goes on from its last checkpoint, if any")
        raise
    emit(text.import_record(result), as_json=as_json, text="")
    say(text.import_text(result, policy=parse_policy(rules)))
    next_commands(f"rsc data review {name}", f"rsc data show {name}", f"rsc data approve {name}")


@app.command("plant")
def plant(
    target: Annotated[Path, typer.Argument(help="The .jsonl file of posts to write.")],
    truth: Annotated[Path, typer.Option(help="The file that takes the posts with what was planted where.")],
    records: Annotated[int, typer.Option(help="How many posts.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same posts.")] = 1,
) -> None:
    """Write posts with planted personal data (nobody's), and the truth about them."""
    with target.open("w") as posts, truth.open("w") as truths:
        for post in planted_posts(records, seed=seed):
            spans = [{"start": start, "end": end, "type": kind} for start, end, kind in post.spans]
            print(json.dumps({"id": post.id, "text": post.text}), file=posts)
            print(json.dumps({"id": post.id, "text": post.text, "spans": spans}), file=truths)
    say(f"wrote {records} posts to {target}, and what is planted in them to {truth}")
    next_commands(f"rsc data import {target}", f"rsc data review {_name_of(str(target))} --truth {truth}")


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the data sets with where their newest version stands."""
    house = Custody.open()
    workspace = house.workspace
    records = []
    for name, versions in list_datasets(workspace.bulk):
        dataset = Dataset.open(workspace.bulk, name=name)
        facts = house.facts(dataset)
        key = _key_state(dataset, providers=house.providers)
        records.append({**text.state_record(dataset, facts), "key": key, "versions": versions})
    emit({"data": records}, as_json=as_json, text=text.ls_text(records))
    if not records:
        next_commands("rsc data import FILE", "rsc data import python-docs")


@app.command("show")
def show(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """Splits, fields, sizes, source, review and keys of a version."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    facts = house.facts(dataset)
    key = _key_state(dataset, providers=house.providers)
    record = text.show_record(dataset, facts, key_state=key)
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
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    acting_name(house, as_name)
    if with_key:
        with house.review_key(dataset) as key:
            report = dataset.verify(key=key)
    else:
        report = dataset.verify()
    record = text.verify_record(dataset, report)
    emit(record, as_json=as_json, text=text.verify_text(record))
    if not report.is_good:
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


def _policy_bytes(house: Custody, *, path: Path | None, safeguard: str) -> bytes:
    """The policy file as it stands, or a default one for as many people as the workspace knows."""
    if path is None:
        rules = default_policy(single_person=house.recorded.persons() < 2)
        return policy_to_toml(rules.model_copy(update={"safeguard": safeguard}))
    if safeguard:
        raise ConfigError("both --policy and --safeguard were given", hint=f"write `safeguard` into {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the policy {path}: {error.strerror}",
            hint=f"write one with `rsc review policy new {path}`",
        ) from None


def _name_of(source: str) -> str:
    """`My Posts.jsonl.gz` -> `my-posts`."""
    stem = Path(source).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_") or "data"


def _key_state(dataset: Dataset, *, providers: Mapping[str, KeyProvider]) -> str:
    """`active` or `destroyed`; `unknown` where the provider is not configured here or does not answer."""
    envelope = dataset.envelope()
    try:
        states = {info.kek_id: info.state for info in providers[envelope.provider].list()}
    except (KeyError, RscError):
        return "unknown"
    return states.get(envelope.kek_id, "unknown")


app.command("review")(review.review)
app.command("approve")(verdicts.approve)
app.command("reject")(verdicts.reject)
app.command("policy")(review.policy)
app.command("expire")(end.expire_)
app.command("erase")(end.erase_)
app.command("trace")(end.trace_)

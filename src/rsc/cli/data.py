"""`rsc data ...`: bring data in, look at what the gate found, approve it, show it, take it away."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.audit.log import AuditLog
from rsc.cli import data_text
from rsc.cli.output import JsonFlag, emit, next_commands, say
from rsc.clock import SystemClock
from rsc.config import Resolved, Workspace, parse_as
from rsc.errors import ConfigError, DataError, RscError
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_source
from rsc.ingest.look import excerpts, findings_by_record, read_findings, read_rows
from rsc.ingest.progress import ProgressLine
from rsc.release.agent import KeyAgent
from rsc.release.erase import erase
from rsc.release.facts import data_facts
from rsc.release.request import KeyRequest
from rsc.release.retention import expire
from rsc.release.trace import trace
from rsc.review import approval
from rsc.review.explain import explain, lint
from rsc.review.identity import Identity, create_identity, known_identities, load_identity
from rsc.review.planted import planted_posts
from rsc.review.policy import Tables, default_policy, parse_policy, policy_to_toml
from rsc.review.report import report_from_json
from rsc.review.score import Rate, read_corpus, score
from rsc.review.tables import TableReport, assess_table
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.keys import KeyProvider
from rsc.store.providers.configured import configured_providers
from rsc.store.secret import SecretKey

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(help="Name of a data set, as in `rsc data ls`.")]
Version = Annotated[int | None, typer.Option("--version", help="Which version; the newest if left out.")]
As = Annotated[str | None, typer.Option("--as", help="Your name as a reviewer; your login name if left out.")]
Subject = Annotated[
    str, typer.Option("--subject", help="An address, number or handle of the person; - reads it from stdin.")
]
Note = Annotated[str, typer.Option("--note", help="What you looked at, and why you decided so.")]


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
    encoding: Annotated[str | None, typer.Option(help="Encoding of text, if it is not UTF-8.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes; one a core if left out.")] = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Scan, redact by policy and encrypt a source, in one pass. Plaintext never rests on disk."""
    workspace, clock = Workspace.from_environment(), SystemClock()
    flags = {"format": source_format, "text_field": text_field, "holdout": holdout, "encoding": encoding}
    flags["fields"] = None if fields is None else tuple(part.strip() for part in fields.split(","))  # type: ignore[assignment]
    options = _options(flags, settings or [])
    author = _identity(workspace, as_name).name
    rules = _policy_bytes(workspace, path=policy, safeguard=safeguard)
    name = name or _name_of(source)
    try:
        result = import_source(
            source,
            name=name,
            workspace=workspace,
            policy=rules,
            author=author,
            options=options,
            provider=next(iter(configured_providers(workspace.keys).values())),
            num_processes=processes or len(os.sched_getaffinity(0)),
            clock=clock,
            progress=ProgressLine(clock=clock),
        )
    except KeyboardInterrupt:
        say("interrupted: nothing was published; the same command goes on from the last checkpoint")
        raise
    emit(data_text.import_record(result), as_json=as_json, text="")
    say(data_text.import_text(result, policy=parse_policy(rules)))
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


@app.command("review")
def review(
    name: Name,
    truth: Annotated[
        Path | None, typer.Option(help="The same records with labelled spans, to score against.")
    ] = None,
    samples: Annotated[int, typer.Option(help="How many findings of each type to show in context.")] = 3,
    version: Version = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """What the gate found, masked and in context; what it does not look for; the policy in sentences."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.data, name=name, version=version)
    facts = data_facts(dataset, identities=workspace.identities, now=SystemClock().now())
    record: dict[str, Any] = {
        **data_text.state_record(dataset, facts),
        "report": data_text.report_record(report_from_json(dataset.read_review("report.json") or b"")),
        "policy": explain(facts.policy),
        "remarks": [remark._asdict() for remark in lint(facts.policy)],
    }
    with _review_key(workspace, dataset, user=_user(as_name)) as key:
        shown = excerpts(dataset, key=key, per_type=samples)
        record["samples"] = [data_text.excerpt_record(item) for item in shown]
        if facts.policy.tables.quasi_identifiers:
            record["tables"] = asdict(_assess(dataset, rules=facts.policy.tables, key=key))
        if truth is not None:
            record["score"] = _score(dataset, key=key, truth=truth)
    emit(record, as_json=as_json, text=data_text.review_text(record))
    if facts.review.state == "in_review":
        next_commands(f"rsc data approve {name} --note ...", f"rsc data reject {name} --note ...")


@app.command("approve")
def approve(name: Name, note: Note = "", version: Version = None, as_name: As = None) -> None:
    """Sign for a version: the data, the report and the policy as they are now, and nothing else."""
    _sign(approval.approve, name=name, version=version, note=note, as_name=as_name)


@app.command("reject")
def reject(name: Name, note: Note = "", version: Version = None, as_name: As = None) -> None:
    """Sign against a version. One rejection is enough; keys are then released to nobody."""
    _sign(approval.reject, name=name, version=version, note=note, as_name=as_name)


@app.command("policy")
def policy(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """The policy of a data set in sentences. `rsc review policy new` writes one to start from."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.data, name=name, version=version)
    content = dataset.read_review("policy.toml") or b""
    rules = parse_policy(content, name=f"the policy of {name}")
    record = {
        **data_text.version_record(dataset),
        "policy": explain(rules),
        "remarks": [remark._asdict() for remark in lint(rules)],
        "toml": content.decode(),
    }
    emit(record, as_json=as_json, text="\n".join(data_text.policy_lines(record)))


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the data sets with where their newest version stands."""
    workspace, now = Workspace.from_environment(), SystemClock().now()
    providers = configured_providers(workspace.keys)
    records = []
    for name, versions in list_datasets(workspace.data):
        dataset = Dataset.open(workspace.data, name=name)
        facts = data_facts(dataset, identities=workspace.identities, now=now)
        key = _key_state(dataset, providers=providers)
        records.append({**data_text.state_record(dataset, facts), "key": key, "versions": versions})
    emit({"data": records}, as_json=as_json, text=data_text.ls_text(records))
    if not records:
        next_commands("rsc data import FILE", "rsc data import python-docs")


@app.command("show")
def show(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """Splits, fields, sizes, source, review and keys of a version."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.data, name=name, version=version)
    facts = data_facts(dataset, identities=workspace.identities, now=SystemClock().now())
    key = _key_state(dataset, providers=configured_providers(workspace.keys))
    record = data_text.show_record(dataset, facts, key_state=key)
    emit(record, as_json=as_json, text=data_text.show_text(record))


@app.command("verify")
def verify(
    name: Name,
    with_key: Annotated[bool, typer.Option("--with-key", help="Also authenticate every frame.")] = False,
    version: Version = None,
    as_name: As = None,
    as_json: JsonFlag = False,
) -> None:
    """Read every byte of a version again and check it against its root."""
    workspace = Workspace.from_environment()
    dataset = Dataset.open(workspace.data, name=name, version=version)
    if with_key:
        with _review_key(workspace, dataset, user=_user(as_name)) as key:
            report = dataset.verify(key=key)
    else:
        report = dataset.verify()
    record = data_text.verify_record(dataset, report)
    emit(record, as_json=as_json, text=data_text.verify_text(record))
    if not report.is_good:
        raise typer.Exit(1)


@app.command("trace")
def trace_(subject: Subject, as_name: As = None, as_json: JsonFlag = False) -> None:
    """Where a person is: records, data sets, runs, checkpoints and exports. The log gets counts only."""
    workspace, clock = Workspace.from_environment(), SystemClock()
    audit = AuditLog.open(workspace.audit, clock=clock)
    agent = _agent(workspace, audit=audit)
    found = trace(workspace, _subject(subject), agent=agent, audit=audit, user=_user(as_name))
    record = found.to_json()
    emit(record, as_json=as_json, text=data_text.trace_text(record))
    if found.hits:
        next_commands("rsc data erase --subject ...")


@app.command("erase")
def erase_(subject: Subject, as_name: As = None, as_json: JsonFlag = False) -> None:
    """Remove a person's records: new versions without them, old keys destroyed, derived models marked."""
    workspace, clock = Workspace.from_environment(), SystemClock()
    audit = AuditLog.open(workspace.audit, clock=clock)
    erased = erase(
        workspace,
        _subject(subject),
        agent=_agent(workspace, audit=audit),
        providers=configured_providers(workspace.keys),
        audit=audit,
        clock=clock,
        user=_user(as_name),
    )
    record = erased.to_json()
    emit(record, as_json=as_json, text=data_text.erased_text(record))
    next_commands("rsc data ls", "rsc audit show", "rsc verify")


@app.command("expire")
def expire_(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only this version; else all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Destroy the keys of a data set, then its bytes, then prove by trying that nothing opens any more."""
    workspace, clock = Workspace.from_environment(), SystemClock()
    ended = expire(
        workspace,
        name,
        providers=configured_providers(workspace.keys),
        audit=AuditLog.open(workspace.audit, clock=clock),
        clock=clock,
        user=getpass.getuser(),
        version=version,
    )
    record = data_text.expired_record(ended)
    emit(record, as_json=as_json, text=data_text.expired_text(record))
    next_commands("rsc data ls", f"rsc audit show --data {name}", "rsc verify")


def _options(flags: dict[str, Any], settings: Sequence[str]) -> ImportOptions:
    """Flags and key=value settings as one model. Raises ConfigError naming the key that is wrong."""
    values = {key: value for key, value in flags.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"{setting!r} is not key=value", hint="one source at a time; settings as key=value"
            )
        values[key.strip()] = _toml_value(value.strip())
    origins = dict.fromkeys(values, "command line")
    return parse_as(ImportOptions, Resolved(name="rsc data import", values=values, provenance=origins))


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _policy_bytes(workspace: Workspace, *, path: Path | None, safeguard: str) -> bytes:
    """The policy file as it stands, or a default one for as many people as the workspace knows."""
    if path is None:
        rules = default_policy(single_person=_is_alone(workspace))
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


def _is_alone(workspace: Workspace) -> bool:
    return len(known_identities(workspace.identities)) < 2


def _name_of(source: str) -> str:
    """`My Posts.jsonl.gz` -> `my-posts`."""
    stem = Path(source).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_") or "data"


def _user(as_name: str | None) -> str:
    return as_name or getpass.getuser()


def _identity(workspace: Workspace, as_name: str | None) -> Identity:
    """The signing identity; made at first use."""
    name = _user(as_name)
    if (workspace.identities / f"{name}.key").exists():
        return load_identity(workspace.identities, name=name)
    say(f"made a signing key for {name} in {workspace.identities}")
    return create_identity(workspace.identities, name=name)


def _agent(workspace: Workspace, *, audit: AuditLog) -> KeyAgent:
    return KeyAgent(
        workspace, providers=configured_providers(workspace.keys), audit=audit, clock=SystemClock()
    )


def _review_key(workspace: Workspace, dataset: Dataset, *, user: str) -> SecretKey:
    """The data key for the purpose of review; the release is logged. Raises GateRefused."""
    agent = _agent(workspace, audit=AuditLog.open(workspace.audit, clock=SystemClock()))
    return agent.release(KeyRequest(purpose="review", user=user, data=dataset.name, version=dataset.version))


def _subject(text: str) -> str:
    """The person's address, number or handle; `-` reads it from stdin, where no process list shows it."""
    subject = sys.stdin.readline().strip() if text == "-" else text.strip()
    if not subject:
        raise ConfigError("--subject is empty", hint="an e-mail address, a number, a handle; or - for stdin")
    return subject


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


def _assess(dataset: Dataset, *, rules: Tables, key: SecretKey) -> TableReport:
    """How well the rows hide each other. Raises ConfigError for a declared column that is not there."""
    names = (*rules.quasi_identifiers, *rules.sensitive)
    return assess_table(list(read_rows(dataset, names, key=key)), rules=rules)


def _sign(verdict: Any, *, name: str, version: int | None, note: str, as_name: str | None) -> None:
    workspace, clock = Workspace.from_environment(), SystemClock()
    dataset = Dataset.open(workspace.data, name=name, version=version)
    before = data_facts(dataset, identities=workspace.identities, now=clock.now())
    identity = _identity(workspace, as_name)
    if verdict is approval.approve and before.policy.tables.quasi_identifiers:
        with _review_key(workspace, dataset, user=identity.name) as key:
            _assess(dataset, rules=before.policy.tables, key=key).require(data=name)
    facts = approval.review_facts(
        root_hash=dataset.root_hash,
        report=dataset.read_review("report.json") or b"",
        policy=dataset.read_review("policy.toml") or b"",
        decisions=dataset.read_review("decisions.json") or b"",
        author=str(dataset.facts.get("author", "")),
    )
    signed = verdict(facts, policy=before.policy, identity=identity, note=note, clock=clock)
    dataset.write_review(f"approvals/{identity.public_key[:16]}.json", signed.to_json())
    AuditLog.open(workspace.audit, clock=clock).append(
        signed.verdict,
        data=name,
        version=dataset.version,
        root_hash=dataset.root_hash,
        approver=identity.name,
        note=note,
    )
    after = data_facts(dataset, identities=workspace.identities, now=clock.now())
    say(data_text.verdict_text(signed, dataset=dataset, state=after.review))
    if after.review.state == "approved":
        next_commands(f"rsc train language data.name={name}", f"rsc data show {name}")
    else:
        next_commands(f"rsc data show {name}", "rsc data ls")


def _key_state(dataset: Dataset, *, providers: Mapping[str, KeyProvider]) -> str:
    """`active` or `destroyed`; `unknown` where the provider is not configured here or does not answer."""
    envelope = dataset.envelope()
    try:
        states = {info.kek_id: info.state for info in providers[envelope.provider].list()}
    except (KeyError, RscError):
        return "unknown"
    return states.get(envelope.kek_id, "unknown")

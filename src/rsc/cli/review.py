"""`rsc review ...`: judge the scanner on labelled text, write and explain policies."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rsc.cli import reviewers
from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.errors import ConfigError
from rsc.review.benchmark.score import read_corpus, score
from rsc.review.explain import explain, lint
from rsc.review.findings import not_looked_for
from rsc.review.policy import Policy, default_policy, parse_policy, policy_to_toml
from rsc.review.redact import redact
from rsc.review.scanner.local_phone import LocalPhones
from rsc.review.scanner.recogniser import load_recognisers
from rsc.review.scanner.scanner import Scanner
from rsc.review.view import SampleKeeper, in_context

app = typer.Typer(
    no_args_is_help=True, help="Judge the scanner on labelled text, write and explain policies."
)
policy_app = typer.Typer(no_args_is_help=True, help="Write and explain privacy policies.")
app.add_typer(policy_app, name="policy")
app.command("enroll")(reviewers.enroll)
app.command("reviewers")(reviewers.reviewers)

PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="A policy in TOML; by default all is redacted.")
]


@app.command("score")
def score_corpus(
    corpus: Annotated[
        Path, typer.Argument(help="JSON lines with text and spans; docs/review.md has the layout.")
    ],
    policy: PolicyFile = None,
    by: Annotated[Literal["type", "language"], typer.Option(help="Lines of the table.")] = "type",
    as_json: JsonFlag = False,
) -> None:
    """Recall and precision per type on a labelled corpus, with 95 % intervals; with the policy's models."""
    records = read_corpus(_existing(corpus))
    scanner = _scanner(_policy(policy))
    result = score(records, scan=scanner.scan).to_dict()
    facts = {
        "corpus": corpus.name,
        "engine": scanner.engine,
        **result,
        "not_looked_for": list(_not_looked_for(scanner)),
    }
    emit(facts, as_json=as_json, text=_score_text(facts, by=by))


@app.command("scan")
def scan_text(
    file: Annotated[Path, typer.Argument(help="Text in UTF-8; each line is a record.")],
    policy: PolicyFile = None,
    samples: Annotated[int, typer.Option(help="Findings shown per type, with what matched masked.")] = 3,
    as_json: JsonFlag = False,
) -> None:
    """What the gate would find in a text file and put in its place. Nothing is imported or written."""
    rules = _policy(policy)
    phones = LocalPhones()
    scanner, keeper, key = _scanner(rules), SampleKeeper(per_type=samples), secrets.token_bytes(32)
    counts: Counter[str] = Counter()
    with _existing(file).open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            findings = scanner.scan(line)
            if rules.region:
                findings = phones.add(findings, text=line, region=rules.region)
            clean, found = redact(
                line, findings=findings, policy=rules, pseudonym_key=key, region=rules.region
            )
            counts.update(replacement.type for replacement in found)
            for sample in in_context(clean, replacements=found, record=number, field="line"):
                keeper.add(sample)
    kept = keeper.samples()
    facts = {
        "file": file.name,
        "findings": dict(counts.most_common()),
        "samples": {name: [sample.to_dict() for sample in shown] for name, shown in kept.items()},
        "not_looked_for": list(_not_looked_for(scanner)),
    }
    lines_of_text = [f"{counts.total()} findings"]
    for name, shown in kept.items():
        lines_of_text.append(f"{name}: {counts[name]}")
        lines_of_text += [f"  line {sample.record}: {sample.line()}" for sample in shown]
    lines_of_text.append("not looked for: " + "; ".join(facts["not_looked_for"]))
    emit(facts, as_json=as_json, text="\n".join(lines_of_text))


@policy_app.command("new")
def policy_new(
    file: Annotated[Path, typer.Argument(help="Where to write it; an existing file is left alone.")],
    single_person: Annotated[bool, typer.Option(help="One person imports and approves.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a policy with every field and a safe value, to be read and edited."""
    try:
        with file.open("xb") as target:
            target.write(policy_to_toml(default_policy(single_person=single_person)))
    except FileExistsError:
        raise ConfigError(f"{file} exists", hint="choose another name, or remove it first") from None
    emit({"path": str(file)}, as_json=as_json, text="")
    say(f"wrote {file}")
    next_commands(("rsc", "review", "policy", "lint", file))


@policy_app.command("lint")
def policy_lint(
    file: Annotated[Path, typer.Argument(help="A policy in TOML.")],
    as_json: JsonFlag = False,
) -> None:
    """Say in sentences what a policy means, and what a careful reviewer would ask about."""
    policy = parse_policy(_existing(file).read_bytes(), name=file.name)
    sentences, remarks = explain(policy), lint(policy)
    lines = sentences + [f"{r.level}: {r.field}: {r.sentence}" for r in remarks]
    facts = {"file": file.name, "sentences": sentences, "remarks": [r._asdict() for r in remarks]}
    emit(facts, as_json=as_json, text="\n".join(lines))


def _policy(file: Path | None) -> Policy:
    if file is None:
        return default_policy(single_person=True)
    return parse_policy(_existing(file).read_bytes(), name=file.name)


def _scanner(policy: Policy) -> Scanner:
    return Scanner(recognisers=load_recognisers(policy.models))


def _not_looked_for(scanner: Scanner) -> tuple[str, ...]:
    return not_looked_for({name for recogniser in scanner.recognisers for name in recogniser.types})


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path")
    return path


def _score_text(facts: dict[str, Any], *, by: Literal["type", "language"]) -> str:
    if by == "language" and not facts["languages"]:
        raise ConfigError(
            "no record of the corpus names its language",
            hint='add "language" to each record, such as {"text": ..., "spans": [...], "language": "de"}',
        )
    scores = {**facts[f"{by}s"], "all": facts["overall"]}
    rows = [
        (name, *(_rate(s[part]) for part in ("recall", "typed", "precision"))) for name, s in scores.items()
    ]
    lines = [table(rows, header=(by, "recall [95 %]", "right type", "precision"))]
    partial = facts["overall"]["partial"]
    lines.append(f"partly found, which counts as a miss: {_rate(partial)}")
    lines.append(f"{facts['records']} records, {facts['characters']} characters, engine {facts['engine']}")
    if facts["not_scored"]:
        labels = ", ".join(f"{name} {count}" for name, count in sorted(facts["not_scored"].items()))
        lines.append(f"labels nobody looks for, not scored: {labels}")
    return "\n".join([*lines, "not looked for: " + "; ".join(facts["not_looked_for"])])


def _rate(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] of {rate['total']}"

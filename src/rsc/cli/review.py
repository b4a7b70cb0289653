"""`rsc review ...`: judge the scanner on labelled text, write and explain policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.errors import ConfigError
from rsc.review.explain import explain, lint
from rsc.review.findings import NOT_LOOKED_FOR
from rsc.review.policy import default_policy, parse_policy, policy_to_toml
from rsc.review.scan import Scanner
from rsc.review.score import read_corpus, score

app = typer.Typer(
    no_args_is_help=True, help="Judge the scanner on labelled text, write and explain policies."
)
policy_app = typer.Typer(no_args_is_help=True, help="Write and explain privacy policies.")
app.add_typer(policy_app, name="policy")


@app.command("score")
def score_corpus(
    corpus: Annotated[
        Path, typer.Argument(help="JSON lines with text and spans; docs/review.md has the layout.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Recall and precision per type on a labelled corpus, with 95 % intervals."""
    scanner = Scanner()
    result = score(read_corpus(_existing(corpus)), scan=scanner.scan).to_dict()
    facts = {
        "corpus": corpus.name,
        "engine": scanner.engine,
        **result,
        "not_looked_for": list(NOT_LOOKED_FOR),
    }
    emit(facts, as_json=as_json, text=_score_text(facts))


@policy_app.command("new")
def policy_new(
    file: Annotated[Path, typer.Argument(help="Where to write it; an existing file is left alone.")],
    single_person: Annotated[bool, typer.Option(help="One person imports and approves.")] = False,
) -> None:
    """Write a policy with every field and a safe value, to be read and edited."""
    try:
        with file.open("xb") as target:
            target.write(policy_to_toml(default_policy(single_person=single_person)))
    except FileExistsError:
        raise ConfigError(f"{file} exists", hint="choose another name, or remove it first") from None
    say(f"wrote {file}")
    next_commands(f"rsc review policy lint {file}")


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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path")
    return path


def _score_text(facts: dict[str, Any]) -> str:
    scores = {**facts["types"], "all": facts["overall"]}
    rows = [
        (name, *(_rate(s[part]) for part in ("recall", "typed", "precision"))) for name, s in scores.items()
    ]
    lines = [table(rows, header=("type", "recall [95 %]", "right type", "precision"))]
    lines.append(f"{facts['records']} records, {facts['characters']} characters, engine {facts['engine']}")
    if facts["not_scored"]:
        labels = ", ".join(f"{name} {count}" for name, count in sorted(facts["not_scored"].items()))
        lines.append(f"labels nobody looks for, not scored: {labels}")
    return "\n".join([*lines, "not looked for: " + "; ".join(facts["not_looked_for"])])


def _rate(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] of {rate['total']}"

"""Every verb of the table speaks JSON: strict, one document, and the same words for people on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from rsc.cli import main as front
from rsc.cli.output import emit

BECOMES_ANOTHER_PROGRAM = {"cluster dev run"}


def leaves(command: Any, *, name: str) -> Iterator[tuple[str, Any]]:
    """Commands that do something, by their words; groups hold `commands`."""
    below: Mapping[str, Any] = getattr(command, "commands", {})
    if not below:
        yield name, command
    for word, each in below.items():
        yield from leaves(each, name=f"{name} {word}")


def all_verbs() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in front.VERBS:
        found |= leaves(typer.main.get_command(front._load(name)), name=name)
    return found


def test_every_verb_takes_json() -> None:
    verbs = all_verbs()
    assert len(verbs) > 40
    lacking = {
        name
        for name, verb in verbs.items()
        if not any("--json" in parameter.opts for parameter in verb.params)
    }
    assert lacking == BECOMES_ANOTHER_PROGRAM


@pytest.mark.parametrize(
    "line",
    [
        "recipes cp language mine.toml",
        "review policy new rules.toml",
        "data plant posts.jsonl --truth truth.jsonl --records 5",
        "audit export log",
        "audit checkpoint",
        "review enroll --passphrase-file secret --write asked.json",
        "review enroll --passphrase-file secret",
        "cluster dev down --name nothing-of-this-name",
        "review reviewers",
        "keys sweep",
        "plan machines",
    ],
)
def test_actions_print_one_document_and_speak_on_stderr(
    line: str,
    workspace: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("a passphrase of some length\n")
    Path("secret").chmod(0o600)
    assert front.run([*line.split(), "--json"]) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert document["schema"] == 1
    assert len(document) > 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")], {"a": (float("nan"),)}])
def test_no_figure_that_json_lacks_is_printed(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    emit({"value": value}, as_json=True, text="")
    json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))

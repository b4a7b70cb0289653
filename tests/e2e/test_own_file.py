"""The way of a user's own file, command by command, and the JSON of everything that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ADDRESS, Rsc

READS = [
    ["doctor"],
    ["recipes", "ls"],
    ["recipes", "cat", "language"],
    ["data", "ls"],
    ["data", "show", "posts"],
    ["data", "review", "posts"],
    ["data", "policy", "posts"],
    ["data", "verify", "posts"],
    ["runs", "ls"],
    ["runs", "show", "last"],
    ["runs", "logs", "last"],
    ["keys", "ls"],
    ["audit", "show"],
    ["audit", "verify"],
    ["eval", "last"],
    ["generate", "last", "--bytes", "5"],
    ["verify"],
]


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_every_read_command_speaks_json_on_stdout(trained: Rsc, command: list[str]) -> None:
    assert trained.json(*command)["schema"] == 1


def test_the_gate_found_the_addresses_and_shows_none(trained: Rsc) -> None:
    done = trained("data", "review", "posts")
    report = trained.json("data", "review", "posts")["report"]
    assert report["findings"] == 10
    assert ADDRESS not in done.stdout + done.stderr
    assert "single-person" in done.stdout


def test_no_file_holds_what_was_imported(trained: Rsc) -> None:
    sought = [ADDRESS.encode(), b"about the weather, the sea"]
    control = (trained.cwd / "posts.jsonl").read_bytes()
    assert all(text in control for text in sought)
    files = [path for path in trained.home.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if any(text in path.read_bytes() for text in sought)]


def test_the_card_names_where_the_model_comes_from(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    folder = Path(mine.json("runs", "export", "last")["path"])
    card = (folder / "README.md").read_text()
    root = mine.json("data", "show", "posts")["root_hash"]
    for fact in ("posts v1", root, "single-person mode", "data/posts/", "recipe hash", "| energy | "):
        assert fact in card
    assert {"model.safetensors", "tokenizer.json", "card.json"} <= {path.name for path in folder.iterdir()}
    facts = json.loads((folder / "card.json").read_text())
    assert facts["run"]["precision"] == "fp32"


def test_an_exported_folder_answers_as_the_run_does(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    folder = mine.json("runs", "export", "last")["path"]
    arguments = ["--prompt", "post number", "--bytes", "8", "--temperature", "0"]
    assert (
        mine.json("generate", folder, *arguments)["text"] == mine.json("generate", "last", *arguments)["text"]
    )


def test_expired_data_is_refused_everywhere(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    proof = mine.json("data", "expire", "posts")["proof"]
    assert proof["opened_before"] == 1
    assert proof["opened_after"] == 0
    for command in (["train", "language", "data.name=posts"], ["eval", "last"], ["runs", "export", "last"]):
        told = mine(*command, expect=3).stderr
        assert "destroyed" in told
    assert mine("verify").returncode == 0

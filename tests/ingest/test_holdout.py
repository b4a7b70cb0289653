"""The same text is held out of every data set that has it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rsc.config import Workspace
from rsc.ingest import importer
from rsc.ingest.holdout import held_out
from rsc.ingest.tokenize import train_bpe
from rsc.store.dataset import Dataset
from rsc.tokenizer_json import read_tokenizer

from .bringing import bring_in, posts, stored


def test_a_twin_stored_as_ids_holds_out_the_same_texts(workspace: Workspace, tmp_path: Path) -> None:
    path, tokenizer = posts(tmp_path / "posts.jsonl", 300), tmp_path / "bpe.json"
    tokenizer.write_text(train_bpe(["write to the dog today"] * 20, vocabulary=290))
    bring_in(workspace, path, name="texts")
    bring_in(workspace, path, name="ids", tokenizer=str(tokenizer))
    texts = {row["text"] for row in stored(workspace, "validation", name="texts")}
    decode = read_tokenizer(tokenizer).decode
    assert {decode(row["text"]) for row in stored(workspace, "validation", name="ids")} == texts
    assert texts


@pytest.mark.parametrize(("facts", "key"), [({}, "posts"), ({"holdout_key": ""}, "")])
def test_the_next_version_of_a_set_goes_on_with_its_key(
    facts: dict[str, str], key: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sets made before the key was empty have their name: else the next version would train on what the one
    before held out."""
    path = posts(tmp_path / "posts.jsonl", 300)
    monkeypatch.setattr(importer.Dataset, "open", lambda *_, **__: SimpleNamespace(facts=facts))
    bring_in(workspace, path)
    monkeypatch.undo()
    assert Dataset.open(workspace.bulk, name="posts").facts["holdout_key"] == key
    held, rest = stored(workspace, "validation"), stored(workspace, "train")
    texts = [row["text"] for row in held + rest]
    assert held_out(texts, key=key, share=0.1).tolist() == [True] * len(held) + [False] * len(rest)

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.ingest.config import ImportOptions
from rsc.ingest.inspect import excerpts
from rsc.ingest.tokenize import train_bpe
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.store.dataset import Dataset
from rsc.tokenizer_json import SEPARATOR_TEXT, JsonTokenizer

from .bringing import bring_in, posts, stored

WORDS = ["write to the dog", "the cat and the dog", "caf\u00e9 \u4f60\u597d"] * 50
TRAINED = train_bpe(WORDS, vocabulary=300)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text: str) -> None:
    tokenizer = JsonTokenizer(TRAINED)
    assert tokenizer.decode(tokenizer.encode_many([text])[0]) == text


def test_training_is_bounded_and_repeatable() -> None:
    assert 257 < JsonTokenizer(TRAINED).vocabulary <= 300
    assert train_bpe(WORDS, vocabulary=300) == TRAINED
    assert json.loads(TRAINED)["added_tokens"][0]["content"] == SEPARATOR_TEXT


def test_train_then_store_ids(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 300)
    target = tmp_path / "tokenizer.json"
    result = bring_in(workspace, path, tokenizer=str(target), vocabulary=320)
    assert [(item.name, item.kind, item.dtype) for item in result.fields][1] == ("text", "tokens", "uint16")
    assert "example.org" not in target.read_text()
    tokenizer = JsonTokenizer(target.read_text())
    rows = sorted(stored(workspace, "train") + stored(workspace, "validation"), key=lambda row: row["id"])
    assert tokenizer.decode(rows[3]["text"]) == "post 3: write to [EMAIL] today"
    again = bring_in(workspace, path, tokenizer=str(target), vocabulary=320)
    assert again.splits == result.splits
    dataset = Dataset.open(workspace.data, name="posts")
    provider = LocalKeyProvider(workspace.keys)
    with open_envelope(provider, dataset.envelope(), context=data_key_context("posts")) as key:
        shown = excerpts(dataset, key=key, per_type=1)
    assert shown[0].context == "post 0: write to \u27e6[EMAIL 17-32] -> [EMAIL]\u27e7 today"


def test_the_holdout_does_not_depend_on_the_tokenizer(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 100)
    plain = bring_in(workspace, path)
    (tmp_path / "t.json").write_text(TRAINED)
    assert bring_in(workspace, path, tokenizer=str(tmp_path / "t.json")).splits == plain.splits


def test_not_a_tokenizer(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 5)
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        bring_in(workspace, path, tokenizer=str(path))
    with pytest.raises(ConfigError, match="cannot read tokenizer"):
        bring_in(workspace, path, tokenizer=str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="vocabulary needs tokenizer"):
        ImportOptions(vocabulary=300)

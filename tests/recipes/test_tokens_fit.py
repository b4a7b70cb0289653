"""Stored ids, the tokenizer of a recipe and its separator belong together, or there is no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from rsc.errors import ConfigError
from rsc.ingest.tokenize import train_bpe
from rsc.models.config import ModelConfig, TextConfig
from rsc.recipes.data_fit import SplitSamples, StoredTokenizer
from rsc.recipes.tokens_fit import check_tokens, require_same_text
from rsc.store.format.schema import Field, Schema
from rsc.tokenizer_json import read_tokenizer

TRUNK = {"width": 16, "num_layers": 1, "num_heads": 2, "mlp_width": 16}
TEXT = Schema((Field("text", "string"),))
IDS = Schema((Field("text", "tokens", "uint16"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(train_bpe(["the cat and the dog"] * 50, vocabulary=280))
    return path


def other(path: Path) -> Path:
    """Of the same size, with other merges."""
    found = path.with_name("other.json")
    found.write_text(train_bpe(["tom sat on his mat"] * 50, vocabulary=read_tokenizer(path).vocabulary))
    return found


def model(path: Path | None = None, **text: object) -> ModelConfig:
    named = {} if path is None else {"tokenizer": str(path), "vocabulary": read_tokenizer(path).vocabulary}
    return ModelConfig.model_validate(
        {"trunk": TRUNK, "text": {**named, **text}, "head": {"kind": "next_token"}}
    )


def stored(path: Path, *, sha256: bool = True) -> SplitSamples:
    tokenizer = read_tokenizer(path)
    facts = StoredTokenizer(tokenizer.vocabulary, tokenizer.sha256 if sha256 else None, str(path))
    return SplitSamples(IDS, tokenizer=facts)


def check(samples: SplitSamples, config: ModelConfig, separator: int) -> None:
    check_tokens(samples, model=config, text_field="text", separator=separator)


def test_text_for_a_byte_model_and_ids_for_their_own_tokenizer_fit(path: Path) -> None:
    check(SplitSamples(TEXT), model(), 256)
    check(stored(path), model(path), 0)
    check(stored(path, sha256=False), model(path), 0)
    check(SplitSamples(IDS), model(vocabulary=50257), 50256)


def test_text_and_a_tokenizer_would_train_on_bytes_as_ids(path: Path) -> None:
    with pytest.raises(ConfigError, match="holds text, and a language model is trained on ids") as caught:
        check(SplitSamples(TEXT), model(path), 0)
    assert f"tokenizer={path}" in str(caught.value.hint)


def test_ids_for_a_model_of_bytes_and_the_hint_works(path: Path) -> None:
    with pytest.raises(ConfigError, match="the model reads bytes") as caught:
        check(stored(path), model(), 256)
    settings = dict(part.split("=") for part in str(caught.value.hint).removeprefix("set ").split())
    text = {
        key.removeprefix("model.text."): value for key, value in settings.items() if key != "data.separator"
    }
    check(
        stored(path),
        model(**{**text, "vocabulary": int(text["vocabulary"])}),
        int(settings["data.separator"]),
    )


def test_another_tokenizer_of_the_same_size(path: Path) -> None:
    with pytest.raises(ConfigError, match="imported with another tokenizer"):
        check(stored(path), model(other(path)), 0)


@pytest.mark.parametrize("separator", [1, 5, 256])
def test_a_separator_that_texts_are_made_of(path: Path, separator: int) -> None:
    with pytest.raises(ConfigError, match="cannot stand between them") as caught:
        check(stored(path), model(path, vocabulary=280), separator)
    assert "0 (<|separator|>)" in str(caught.value.hint)


def test_a_separator_that_the_model_has_no_row_for(path: Path) -> None:
    with pytest.raises(ConfigError, match="is no id of the model"):
        check(stored(path), model(path), 5000)


def test_without_control_tokens_a_free_id_is_asked_for(path: Path) -> None:
    values = json.loads(path.read_text())
    values["added_tokens"] = []
    path.write_text(json.dumps(values))
    free = tokenizers.Tokenizer.from_str(path.read_text()).get_vocab_size()
    with pytest.raises(ConfigError) as caught:
        check(stored(path), model(path), 7)
    assert caught.value.hint is not None
    assert f"data.separator={free} model.text.vocabulary={free + 1}" in caught.value.hint
    check(stored(path), model(path, vocabulary=free + 1), free)


def test_an_embedding_is_not_taken_over_for_other_tokens(path: Path) -> None:
    ours, theirs = model(path).text, model(other(path)).text
    require_same_text(ours, ours=ours, of="x")
    require_same_text(None, ours=ours, of="x")
    with pytest.raises(ConfigError, match="another tokenizer"):
        require_same_text(theirs, ours=ours, of="x")
    with pytest.raises(ConfigError, match="has 257 token ids"):
        require_same_text(TextConfig(), ours=ours, of="x")

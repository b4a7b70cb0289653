"""What a tokenizer.json does to text, and what of it is not done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.tokenizer_json import JsonTokenizer, read_tokenizer

CONTROL = ["<s>", "</s>", "<|separator|>"]


def trained(**how: Any) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False, **how
    )
    inner.train_from_iterator(["the river and the stone " * 50], trainer)
    return inner


PLAIN = trained().to_str()


def with_batches(*, length: int) -> str:
    """As a model of sentences ships it: cut and padded."""
    inner = tokenizers.Tokenizer.from_str(PLAIN)
    inner.enable_truncation(max_length=length)
    inner.enable_padding(length=length, pad_id=5, pad_token="x")
    return str(inner.to_str())


@pytest.mark.parametrize("length", [1, 8, 512])
def test_texts_are_neither_cut_nor_padded_whatever_the_file_says(length: int) -> None:
    tokenizer = JsonTokenizer(with_batches(length=length))
    texts = ["the river", "the river and the stone " * 200, ""]
    assert [list(ids) for ids in tokenizer.encode_many(texts)] == [
        list(ids) for ids in JsonTokenizer(PLAIN).encode_many(texts)
    ]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
    assert any(f"to {length} tokens" in note for note in tokenizer.notes)
    assert any("pads" in note for note in tokenizer.notes)


def test_what_a_file_says_of_batches_is_not_part_of_what_it_is() -> None:
    plain = JsonTokenizer(PLAIN)
    assert JsonTokenizer(with_batches(length=8)).sha256 == plain.sha256
    assert JsonTokenizer(json.dumps(json.loads(PLAIN), indent=4)).sha256 == plain.sha256
    assert JsonTokenizer(trained(min_frequency=1000).to_str()).sha256 != plain.sha256
    assert plain.notes == ()


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*CONTROL, " ", "the", "<", "|>", "s", "\u4f60", "\n"]), max_size=12))
def test_a_text_that_spells_control_tokens_stays_text(pieces: list[str]) -> None:
    tokenizer, text = JsonTokenizer(PLAIN), "".join(pieces)
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.control.values())
    assert tokenizer.decode(ids) == text


def test_our_separator_is_a_border_even_where_a_file_calls_it_an_ordinary_token() -> None:
    values = json.loads(PLAIN)
    for token in values["added_tokens"]:
        token["special"] = False
    tokenizer = JsonTokenizer(json.dumps(values))
    assert tokenizer.separator == CONTROL.index("<|separator|>")
    assert tokenizer.separator not in tokenizer.encode("a<|separator|>b")


@pytest.mark.parametrize(("template", "before"), [("<s> $A", [0]), ("<s> $A </s>", [0]), ("$A </s>", [])])
def test_a_prompt_has_what_the_file_puts_before_a_text_and_nothing_behind(
    template: str, before: list[int]
) -> None:
    inner = tokenizers.Tokenizer.from_str(PLAIN)
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = JsonTokenizer(inner.to_str())
    for text in ("the river", ""):
        assert tokenizer.encode_prompt(text) == before + tokenizer.encode(text)


def test_ids_are_below_the_vocabulary_where_a_file_leaves_gaps() -> None:
    values = json.loads(PLAIN)
    values["added_tokens"].append({**values["added_tokens"][0], "id": 999, "content": "<far>"})
    tokenizer = JsonTokenizer(json.dumps(values))
    assert tokenizer.vocabulary > max(tokenizer.encode("the river"))
    assert tokenizer.token(tokenizer.vocabulary - 1) == "<far>"


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 100_000, PLAIN.encode()[:-40]],
)
def test_what_is_no_tokenizer_is_refused_with_its_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        read_tokenizer(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read tokenizer"):
        read_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        read_tokenizer(tmp_path / "none.json")

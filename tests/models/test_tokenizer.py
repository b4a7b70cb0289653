from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.models.config import SEPARATOR, TextConfig
from rsc.models.tokenizer import ByteTokenizer, open_tokenizer
from rsc.tokenizer_json import SEPARATOR_TEXT, read_tokenizer


@given(st.text())
def test_bytes_round_trip(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_broken_utf8_becomes_the_replacement_letter() -> None:
    assert ByteTokenizer().decode([0xFF, 65, SEPARATOR, 66, 300]) == "\ufffdA\n\nB"


@given(st.text())
def test_tokenizer_json_gives_the_same_ids(text: str) -> None:
    shipped = tokenizers.Tokenizer.from_str(ByteTokenizer().to_json())
    if SEPARATOR_TEXT not in text:
        assert shipped.encode(text).ids == ByteTokenizer().encode(text)
        assert shipped.decode(shipped.encode(text).ids) == text


def test_shipped_file_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(ByteTokenizer().to_json())
    opened = read_tokenizer(path)
    assert (opened.vocabulary, opened.separator) == (257, SEPARATOR)
    assert opened.decode(opened.encode("na\u00efve \U0001f600")) == "na\u00efve \U0001f600"
    assert opened.to_json() == read_tokenizer(path).to_json()


def test_unreadable_tokenizer_and_too_small_vocabulary_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"is not a tokenizer\.json"):
        open_tokenizer(TextConfig(tokenizer=str(path)))
    with pytest.raises(ConfigError, match="has 257 ids") as caught:
        open_tokenizer(TextConfig(vocabulary=100))
    assert caught.value.hint == "set model.text.vocabulary=257"

"""Tokens at import: with a given tokenizer.json, or with a byte-level BPE trained on the way in.

The BPE (Gage 1994, as in Radford et al. 2019) is trained on the redacted text of the training split only,
on the first `SAMPLE_BYTES` of it, so that the source is read once and a little. The tokenizer is written
to the path that the options name, for recipes to use, and stored encrypted beside the data, for reviews.

Not covered: a trained vocabulary holds frequent words of the redacted text, and that file is not encrypted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from rsc.durable import replace_file
from rsc.errors import ConfigError
from rsc.store.format.schema import Field, Schema

SEPARATOR = "<|separator|>"  # what recipes look up as the id between documents
SAMPLE_BYTES = 64 << 20  # more changes few merges; training on it takes about a minute of one core
TOKENIZER_SPLIT = "tokenizer"
TOKENIZER_SCHEMA = Schema((Field("json", "string"),))


class TextTokenizer:
    """Texts to ids and back."""

    def __init__(self, json_text: str, *, name: str = "the tokenizer") -> None:
        """Raises ConfigError for text that is not a tokenizer.json."""
        try:
            self._inner = tokenizers.Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises bare Exception for every reason
            raise ConfigError(f"{name} is not a tokenizer.json: {error}") from None
        self.vocabulary: int = self._inner.get_vocab_size(with_added_tokens=True)

    @property
    def dtype(self) -> str:
        """The narrowest that holds every id."""
        return "uint16" if self.vocabulary <= 1 << 16 else "uint32"

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, without special tokens."""
        found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(item.ids, dtype=self.dtype) for item in found]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids), skip_special_tokens=True))


def read_tokenizer(path: Path) -> str:
    """Raises ConfigError for a file that is missing or is no tokenizer.json."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"cannot read tokenizer {path}: {reason}", hint="vocabulary=8000 trains one and writes it there"
        ) from None
    TextTokenizer(text, name=str(path))
    return text


def train_bpe(texts: Iterable[str], *, vocabulary: int) -> str:
    """tokenizer.json of a byte-level BPE with at most `vocabulary` ids: every text has a spelling in it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[SEPARATOR],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_limited(texts), trainer=trainer)
    return str(tokenizer.to_str(pretty=False))


def write_tokenizer(path: Path, json_text: str) -> None:
    """Write it whole or not at all. Raises ConfigError where the folder is missing."""
    if not path.parent.is_dir():
        raise ConfigError(
            f"the folder {path.parent} does not exist", hint=f"make it, or name another for {path.name}"
        )
    replace_file(path, json_text.encode(), mode=0o644)


def _limited(texts: Iterable[str]) -> Iterator[str]:
    size = 0
    for text in texts:
        if size >= SAMPLE_BYTES:
            return
        size += len(text)
        yield text

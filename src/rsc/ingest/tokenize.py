"""Tokens at import: with a given tokenizer.json, or with a byte-level BPE trained on the way in.

The BPE (Gage 1994, as in Radford et al. 2019) is trained on the redacted text of the training split only,
on the first `SAMPLE_BYTES` of it, so that the source is read once and a little. The tokenizer is written
to the path that the options name, for recipes to use, and stored encrypted beside the data, for reviews.

Not covered: a trained vocabulary holds frequent words of the redacted text, and that file is not encrypted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers

from rsc.durable import replace_file
from rsc.errors import ConfigError
from rsc.store.format.schema import Field, Schema
from rsc.tokenizer_json import SEPARATOR_TEXT

SAMPLE_BYTES = 64 << 20  # more changes few merges; training on it takes about a minute of one core
TOKENIZER_SPLIT = "tokenizer"
TOKENIZER_SCHEMA = Schema((Field("json", "string"),))


def train_bpe(texts: Iterable[str], *, vocabulary: int) -> str:
    """tokenizer.json of a byte-level BPE with at most `vocabulary` ids: every text has a spelling in it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[SEPARATOR_TEXT],
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

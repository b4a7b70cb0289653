"""Text to token ids and back: bytes as they are, or a `tokenizer.json`. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import tokenizers

from rsc.errors import ConfigError
from rsc.models.config import NUM_BYTES, SEPARATOR, TextConfig
from rsc.tokenizer_json import SEPARATOR_TEXT, JsonTokenizer, read_tokenizer


class Tokenizer(Protocol):
    vocabulary: int

    @property
    def separator(self) -> int | None:
        """Id that stands between documents, if there is one."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_prompt(self, text: str) -> list[int]:
        """Ids that a model continues: some tokenizers put a token before them."""
        ...

    def token(self, number: int) -> str | None:
        """How `to_json` writes an id."""
        ...

    def decode(self, ids: list[int]) -> str: ...

    def to_json(self) -> str:
        """The same tokenizer in the `tokenizer.json` format that servers of open models read."""
        ...


class ByteTokenizer:
    """Ids 0-255 are the bytes of UTF-8, 256 is the separator."""

    vocabulary = NUM_BYTES + 1
    separator = SEPARATOR

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def token(self, number: int) -> str | None:
        return [*_byte_letters(), SEPARATOR_TEXT][number] if 0 <= number <= SEPARATOR else None

    def decode(self, ids: list[int]) -> str:
        """Bytes that are not UTF-8 become U+FFFD; separators become an empty line."""
        data = b"".join(bytes([i]) if i < NUM_BYTES else b"\n\n" for i in ids if i <= SEPARATOR)
        return data.decode(errors="replace")

    def to_json(self) -> str:
        vocabulary = {letter: byte for byte, letter in enumerate(_byte_letters())}
        model = tokenizers.models.BPE(vocab=vocabulary, merges=[])
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        tokenizer.add_special_tokens([SEPARATOR_TEXT])
        return str(tokenizer.to_str(pretty=False))


def open_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer a text stem names. Raises ConfigError if it has more ids than the stem has rows for, or
    is not the one that the settings were made with."""
    tokenizer = ByteTokenizer() if config.tokenizer == "bytes" else _named_by(config)
    if tokenizer.vocabulary > config.vocabulary:
        raise ConfigError(
            f"tokenizer {config.tokenizer} has {tokenizer.vocabulary} ids, model.text.vocabulary is "
            f"{config.vocabulary}",
            hint=f"set model.text.vocabulary={tokenizer.vocabulary}",
        )
    return tokenizer


def _named_by(config: TextConfig) -> JsonTokenizer:
    tokenizer, wanted = read_tokenizer(Path(config.tokenizer)), config.tokenizer_sha256
    if wanted and tokenizer.sha256 != wanted:
        raise ConfigError(
            f"{config.tokenizer} is not the tokenizer of this model: its content is "
            f"{tokenizer.sha256[:16]}, the model's was {wanted[:16]}",
            hint="put back the file that the model was trained with",
        )
    return tokenizer


def _byte_letters() -> list[str]:
    """The printable letter that byte-level vocabularies write for each byte, in byte order (GPT-2's table):
    printable Latin-1 stands for itself, the 68 others take the letters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(NUM_BYTES)]

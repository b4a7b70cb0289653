"""Text to token ids and back: bytes as they are, or a `tokenizer.json`. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import tokenizers

from rsc.errors import ConfigError
from rsc.models.config import NUM_BYTES, SEPARATOR, TextConfig

SEPARATOR_TEXT = "<|separator|>"


class Tokenizer(Protocol):
    vocabulary: int
    separator: int | None
    """Id that stands between documents, if there is one."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def to_json(self) -> str:
        """The same tokenizer in the `tokenizer.json` format that servers of open models read."""
        ...


class ByteTokenizer:
    """Ids 0-255 are the bytes of UTF-8, 256 is the separator."""

    vocabulary = NUM_BYTES + 1
    separator: int | None = SEPARATOR

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

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


class JsonTokenizer:
    """A tokenizer as open models ship it."""

    def __init__(self, path: Path) -> None:
        try:
            self._inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every reason
            raise ConfigError(
                f"cannot read tokenizer {path}: {error}", hint="give a tokenizer.json, or tokenizer = bytes"
            ) from None
        self.vocabulary: int = self._inner.get_vocab_size(with_added_tokens=True)
        self.separator: int | None = self._inner.token_to_id(SEPARATOR_TEXT)

    def encode(self, text: str) -> list[int]:
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self._inner.decode(ids, skip_special_tokens=True))

    def to_json(self) -> str:
        return str(self._inner.to_str(pretty=False))


def open_tokenizer(config: TextConfig) -> Tokenizer:
    """The tokenizer a text stem names. Raises ConfigError if it has more ids than the stem has rows for."""
    tokenizer: Tokenizer = (
        ByteTokenizer() if config.tokenizer == "bytes" else JsonTokenizer(Path(config.tokenizer))
    )
    if tokenizer.vocabulary > config.vocabulary:
        raise ConfigError(
            f"tokenizer {config.tokenizer} has {tokenizer.vocabulary} ids, model.text.vocabulary is "
            f"{config.vocabulary}",
            hint=f"set model.text.vocabulary={tokenizer.vocabulary}",
        )
    return tokenizer


def _byte_letters() -> list[str]:
    """The printable letter that byte-level vocabularies write for each byte, in byte order (GPT-2's table):
    printable Latin-1 stands for itself, the 68 others take the letters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(rest)) for byte in range(NUM_BYTES)]

"""A `tokenizer.json` as open models ship it: texts to ids and back, nothing more than that.

Text is text: a document that spells a control token ("<|endoftext|>") gets the ids of its letters, for else
whoever wrote it could plant the border of a document. What such a file says about batches (cut texts to 8
tokens, pad them to 512) is left out, and named in `notes`: RSC cuts and pads where a recipe says so.

Not covered: added tokens that a file does not mark as special and that are no borders either; they are part
of its vocabulary like any other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from rsc.errors import ConfigError

SEPARATOR_TEXT = "<|separator|>"
"""What stands between two documents in tokenizers that RSC trains."""
_MAX_BYTES = 256 << 20  # the largest vocabularies of open models take 30 MB


class JsonTokenizer:
    """One tokenizer, by the text of its file."""

    def __init__(self, text: str, *, name: str = "the tokenizer") -> None:
        """Raises ConfigError for text that is not a tokenizer.json."""
        try:
            inner = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:  # a bare Exception for every reason, or a panic of its regex engine
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise ConfigError(
                f"{name} is not a tokenizer.json: {error}",
                hint="give the tokenizer.json of a model, or let an import train one with vocabulary=8000",
            ) from None
        notes = []
        if inner.truncation is not None:
            length = inner.truncation["max_length"]
            notes.append(f"it cuts texts to {length} tokens: switched off, texts stay whole")
            inner.no_truncation()
        if inner.padding is not None:
            notes.append("it pads texts: switched off")
            inner.no_padding()
        self.notes = tuple(notes)
        """What the file says that is not done, in words."""
        self.text: str = inner.to_str(pretty=False)
        """tokenizer.json without what `notes` names."""
        self._inner = tokenizers.Tokenizer.from_str(_with_special(self.text))
        self._inner.encode_special_tokens = True
        ids = self._inner.get_vocab(with_added_tokens=True).values()
        self.vocabulary: int = max(ids, default=-1) + 1
        """Ids are below it; not every id need be in use."""

    @cached_property
    def sha256(self) -> str:
        """Of what it does: the file without its order of keys and its spaces."""
        canonical = json.dumps(json.loads(self.text), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def control(self) -> dict[str, int]:
        """Tokens that no text is turned into: borders, padding, and what chat formats use."""
        added = self._inner.get_added_tokens_decoder()
        return {token.content: number for number, token in sorted(added.items()) if token.special}

    @property
    def separator(self) -> int | None:
        """Id of `SEPARATOR_TEXT`; None in a file that has no such token."""
        return self.control.get(SEPARATOR_TEXT)

    @property
    def dtype(self) -> str:
        """The narrowest that holds every id."""
        return "uint16" if self.vocabulary <= 1 << 16 else "uint32"

    def token(self, number: int) -> str | None:
        """How the file writes an id; None for one that it does not have."""
        return self._inner.id_to_token(number)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any token around it. Raises ConfigError where a pattern explodes."""
        with _told():
            return list(self._inner.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text in `dtype`, on all cores. Raises ConfigError as `encode` does."""
        with _told():
            found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(item.ids, dtype=self.dtype) for item in found]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text behind what the file puts before one, as the model was trained; nothing behind it."""
        probe = self._inner.encode("a", add_special_tokens=True)
        before = itertools.takewhile(itemgetter(1), zip(probe.ids, probe.special_tokens_mask, strict=True))
        return [number for number, _ in before] + self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def to_json(self) -> str:
        return self.text


def read_tokenizer(path: Path) -> JsonTokenizer:
    """Raises ConfigError for a file that is missing, is none, or is no tokenizer.json."""
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "No such file" if not path.exists() else "Not a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes: that is no tokenizer.json")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"cannot read tokenizer {path}: {reason}",
            hint="give the path of a tokenizer.json; an import with vocabulary=8000 trains one there",
        ) from None
    return JsonTokenizer(text, name=str(path))


@contextmanager
def _told() -> Iterator[None]:
    """A pattern that may match in too many ways ends in a panic of Rust, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ConfigError(
            "the tokenizer cannot encode this text: a pattern in it can match in too many ways",
            hint="give another tokenizer.json, or let an import train one with vocabulary=8000",
        ) from None


def _with_special(text: str) -> str:
    """Our separator is a border whatever the file marks it as."""
    values: dict[str, Any] = json.loads(text)
    added = values.get("added_tokens") or []
    for token in added:
        token["special"] = token["special"] or token["content"] == SEPARATOR_TEXT
    return json.dumps(values)

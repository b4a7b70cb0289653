"""Whether stored text or ids are what a model's tokenizer makes of text: checked before there is a run.

Ids of another vocabulary train without a word: they are numbers, and a loss falls on any numbers. No torch.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from rsc.errors import ConfigError
from rsc.models.config import ModelConfig, TextConfig
from rsc.models.tokenizer import open_tokenizer
from rsc.recipes.data_fit import SplitSamples, StoredTokenizer
from rsc.tokenizer_json import SEPARATOR_TEXT, JsonTokenizer, read_tokenizer

_ENDS = (SEPARATOR_TEXT, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")  # what files call the border


def tokenizer_of(text: TextConfig) -> JsonTokenizer | None:
    """The file that a text stem names; None for bytes. Raises ConfigError for a file that is no tokenizer or
    has more ids than the model."""
    tokenizer = open_tokenizer(text)
    return tokenizer if isinstance(tokenizer, JsonTokenizer) else None


def check_tokens(
    samples: SplitSamples, *, model: ModelConfig, text_field: str, separator: int | None = None
) -> None:
    """Raises ConfigError where the model would read other tokens than were meant.

    `text_field` and `separator` are what a language model reads and puts between documents; no separator is
    looked at where none is given.
    """
    if model.text is None:
        return
    is_packed = model.task.is_language
    name = text_field if is_packed else model.text.field
    kind = next((item.kind for item in samples.schema.fields if item.name == name), None)
    tokenizer = tokenizer_of(model.text)
    if kind == "tokens" and name == "text" and samples.tokenizer is not None:
        _require_same(samples.tokenizer, model.text, tokenizer, is_packed=is_packed)
    elif is_packed and tokenizer is not None and kind in ("string", "bytes"):
        raise ConfigError(
            f"field {name} holds text, and a language model is trained on ids: the tokenizer is applied when "
            "data is imported",
            hint=f"import the data again with tokenizer={model.text.tokenizer}, or train on its bytes "
            "with model.text.tokenizer=bytes model.text.vocabulary=257 data.separator=256",
        )
    if is_packed and separator is not None:
        _check_separator(separator, model.text, tokenizer)


def settings_for(stored: StoredTokenizer, *, is_packed: bool = True) -> list[str]:
    """What a recipe is to be told so that its model reads these ids, ready for a shell."""
    settings = [
        f"model.text.tokenizer={shlex.quote(stored.path)}",
        f"model.text.vocabulary={stored.vocabulary}",
    ]
    return [*settings, f"data.separator={_border_of(stored)}"] if is_packed else settings


def _require_same(
    stored: StoredTokenizer, text: TextConfig, ours: JsonTokenizer | None, *, is_packed: bool
) -> None:
    if ours is None:
        raise ConfigError(
            f"the data holds ids of a tokenizer with {stored.vocabulary} ids, the model reads bytes",
            hint=f"set {' '.join(settings_for(stored, is_packed=is_packed))}",
        )
    if stored.sha256 is None:
        is_same = stored.vocabulary == ours.vocabulary
    else:
        is_same = stored.sha256 == ours.sha256
    if not is_same:
        theirs = (stored.sha256 or "")[:16] or f"{stored.vocabulary} ids"
        raise ConfigError(
            f"the data was imported with another tokenizer ({theirs}) than {text.tokenizer} "
            f"({ours.sha256[:16]}, {ours.vocabulary} ids)",
            hint="name the file that the import used with model.text.tokenizer",
        )


def _border_of(stored: StoredTokenizer) -> str:
    """The id that belongs between its documents, where the file is still there to say so."""
    try:
        tokenizer = read_tokenizer(Path(stored.path))
    except ConfigError:
        return "ID"
    return str(_borders(tokenizer)[0]) if tokenizer.control else "ID"


def _borders(tokenizer: JsonTokenizer) -> list[int]:
    """Control tokens, the likeliest border first."""
    control = tokenizer.control
    likely = [control[name] for name in _ENDS if name in control]
    return likely + [number for number in control.values() if number not in likely]


def _check_separator(separator: int, text: TextConfig, tokenizer: JsonTokenizer | None) -> None:
    if not 0 <= separator < text.vocabulary:
        raise ConfigError(
            f"data.separator = {separator} is no id of the model: model.text.vocabulary is {text.vocabulary}",
            hint=f"give one from 0 to {text.vocabulary - 1}",
        )
    if tokenizer is None or separator in tokenizer.control.values() or separator >= tokenizer.vocabulary:
        return
    meaning = f"data.separator = {separator} is {tokenizer.token(separator)!r} in {text.tokenizer}"
    if tokenizer.control:
        told = ", ".join(f"{number} ({tokenizer.token(number)})" for number in _borders(tokenizer)[:4])
        hint = f"set data.separator to one of its control tokens: {told}"
    else:
        free = tokenizer.vocabulary
        hint = f"the file has no control token: set data.separator={free} model.text.vocabulary={free + 1}"
    raise ConfigError(f"{meaning}: a token that texts are made of cannot stand between them", hint=hint)


def require_same_text(theirs: TextConfig | None, *, ours: TextConfig | None, of: str) -> None:
    """May an embedding be taken over? Raises ConfigError where ids mean other tokens: vectors are taken over
    by shape, and those of another vocabulary would start at random, or as the vectors of other tokens."""
    if theirs is None or ours is None:
        return
    if theirs.vocabulary != ours.vocabulary:
        raise ConfigError(
            f"model.init_from: {of} has {theirs.vocabulary} token ids (the recipe has {ours.vocabulary})",
            hint=f"set model.text.vocabulary={theirs.vocabulary} model.text.tokenizer={theirs.tokenizer}",
        )
    found, wanted = tokenizer_of(theirs), tokenizer_of(ours)
    if (found and found.sha256) != (wanted and wanted.sha256):
        raise ConfigError(
            f"model.init_from: {of} was trained with another tokenizer than {ours.tokenizer}",
            hint=f"set model.text.tokenizer={theirs.tokenizer}",
        )

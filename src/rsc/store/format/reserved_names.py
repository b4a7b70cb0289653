"""Names that data sets and splits cannot be given, because files of RSC have them. One table for all formats.

Names of data sets and splits become folders; endings belong to files. Versions that were written before this
table may bear such names and still open: only `check_new_name` refuses, at import.
"""

from __future__ import annotations

from typing import Literal

from rsc.errors import ConfigError
from rsc.store.format.root import check_name

SIDECARS = {
    "findings": "what the gate found",
    "quarantine": "records that could not be read",
    "tokenizer": "the tokenizer that texts were stored with",
    "subject-key": "the key of the codes in findings, after an erasure",
}
"""Splits of a version that say what happened to the data; they are never trained on."""

_BESIDE_SPLITS = {"review": "the papers of a review", "claim": "the mark of a version being written"}
_ENDINGS = {
    ".kek": "keys",
    ".destroyed": "destroyed keys",
    ".ending": "keys whose end began",
    ".json": "papers and registers",
    ".toml": "settings and policies",
    ".manifest": "lists of shards",
    ".rsc": "shards",
    ".key": "signing keys",
    ".pub": "public keys",
}


def check_new_name(name: str, *, what: Literal["data set", "split"]) -> str:
    """A name for a new data set or split. Raises ConfigError for one that cannot be had."""
    check_name(name)
    taken = {**SIDECARS, **_BESIDE_SPLITS}.get(name)
    if what == "split" and taken is not None:
        raise ConfigError(f"a split cannot be called {name!r}: that name is for {taken}", hint=_reserved())
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if ending is not None:
        raise ConfigError(
            f"a {what} cannot be called {name!r}: the ending {ending} is for {_ENDINGS[ending]}",
            hint=_reserved(),
        )
    return name


def _reserved() -> str:
    names = ", ".join((*SIDECARS, *_BESIDE_SPLITS))
    return f"reserved names of splits: {names}; reserved endings: {' '.join(_ENDINGS)}"

"""What folders and files are called when they hold a split."""

from __future__ import annotations

import re
from pathlib import Path

from rsc.errors import ConfigError
from rsc.store.format.root import check_name

SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


def split_of_name(name: str) -> str:
    """The split of a name that is surely one. Raises ConfigError when it cannot be stored under it."""
    known = SPLIT_NAMES.get(name.lower())
    if known is None and name.lower() in ("findings", "quarantine"):
        raise ConfigError(
            f"a split cannot be called {name!r}", hint="that name is taken by what the gate found"
        )
    return known or check_name(name.lower())


def split_of_file(path: Path) -> str | None:
    """`train-00000-of-00002.parquet` -> train; None for a name that does not begin with a split."""
    return SPLIT_NAMES.get(re.split(r"[-_.]", path.name.lower())[0])

"""What folders and files are called when they hold a split."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsc.errors import ConfigError, DataError
from rsc.ingest.readers.source import SourceFile
from rsc.store.format.reserved_names import check_new_name

SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


def split_of_name(name: str) -> str:
    """The split of a name that is surely one. Raises ConfigError when it cannot be stored under it."""
    return SPLIT_NAMES.get(name.lower()) or check_new_name(name.lower(), what="split")


def splits_of_names(names: object) -> dict[str, str]:
    """Split of each name that a source lists. Raises DataError for what is no list of names, and ConfigError
    where two of them would become one split (`Dev` and `validation`)."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("the source's list of splits is not a list of names")
    named: dict[str, str] = {}
    for name in names:
        split = split_of_name(name)
        if split in named.values():
            raise ConfigError(
                f"two splits of the source would both be stored as {split!r}",
                hint="rename one of them, or import them as two data sets",
            )
        named[name] = split
    return named


def split_of_file(path: SourceFile) -> str | None:
    """`train-00000-of-00002.parquet` -> train; None for a name that does not begin with a split."""
    return SPLIT_NAMES.get(re.split(r"[-_.]", path.name.lower())[0])


def splits_of_files(paths: Sequence[SourceFile]) -> list[str | None]:
    """The split of each file of a set: all are named for one, or none is.

    Raises DataError for a file that is named for none beside others that are: it would move their records.
    """
    splits = [split_of_file(path) for path in paths]
    named = [path.name for path, split in zip(paths, splits, strict=True) if split]
    if named and len(named) < len(paths):
        stray = next(path.name for path, split in zip(paths, splits, strict=True) if not split)
        raise DataError(
            f"{named[0]} belongs to a split by its name, and {stray} beside it to none",
            hint=f"move {stray} out of the folder, or name it for a split: train-{stray}",
        )
    return splits

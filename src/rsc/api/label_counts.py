"""How many samples have which label: what `rsc data show --labels` prints. Reads the data under its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rsc.keys.secret import SecretKey
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Ragged
from rsc.store.format.reserved_names import SIDECARS
from rsc.store.format.schema import Field

MOST_LABELS = 100
"""A field with more different values is no label: an identifier, a measure, a text."""
_LONGEST_LABEL = 64  # letters

LabelCounts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Split -> field -> label -> samples, the most frequent first."""


def count_labels(dataset: Dataset, *, key: SecretKey) -> LabelCounts:
    """Of every field of text or single whole numbers that has few different values, each of them twice or
    more on average, over all splits."""
    counts = {
        split: dict(_of_split(dataset, split, key=key)) for split in dataset.splits if split not in SIDECARS
    }
    names = dict.fromkeys(name for fields in counts.values() for name in fields)
    labels = [name for name in names if _is_label([fields.get(name) for fields in counts.values()])]
    return {
        split: {name: found for name in labels if (found := fields.get(name)) is not None}
        for split, fields in counts.items()
    }


def _is_label(by_split: Sequence[Mapping[str, int] | None]) -> bool:
    """Whether every split was counted to its end, and values repeat."""
    known = [counts for counts in by_split if counts is not None]
    total = sum(sum(counts.values()) for counts in known)
    different = len({value for counts in known for value in counts})
    return len(known) == len(by_split) and different <= MOST_LABELS and 2 * different <= total


def _of_split(dataset: Dataset, split: str, *, key: SecretKey) -> Iterator[tuple[str, dict[str, int] | None]]:
    """Counts by field; None for one that is no label."""
    fields = [item.name for item in dataset.splits[split].schema.fields if _can_be_label(item)]
    counts: dict[str, Counter[str] | None] = {name: Counter() for name in fields}
    for columns in dataset.split(split, key=key).iterate():
        for name, count in counts.items():
            if count is None:
                continue
            count.update(_values(columns[name]))
            if len(count) > MOST_LABELS or any(len(each) > _LONGEST_LABEL for each in count):
                counts[name] = None  # the values of a text need no further counting
    for name, count in counts.items():
        yield name, count and dict(sorted(count.items(), key=lambda each: (-each[1], each[0])))


def _can_be_label(item: Field) -> bool:
    is_number = item.kind == "tensor" and not item.shape and item.dtype != "bfloat16"
    return item.kind == "string" or (is_number and item.storage.kind in "iub")


def _values(column: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | Ragged) -> list[str]:
    if isinstance(column, Ragged):
        return [column[at].tobytes().decode(errors="replace") for at in range(len(column))]
    return [str(value) for value in column.tolist()]

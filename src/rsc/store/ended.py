"""What stays in the open of a version whose key is destroyed: numbers, and nothing that its source brought.

Names of fields and splits, notes, options, reasons and the name of the source came with the data, so they end
with it. Sizes, hashes, times, who imported it and how many records there were stay, with the root hash
that the version had: the log knows it by that.
"""

from __future__ import annotations

from typing import Any

from rsc.store.format.reserved_names import SIDECARS
from rsc.store.format.root import Root
from rsc.store.format.schema import Field, Schema

ENDED = "ended"
"""The fact in root.json that says so, with the root hash that the version had."""
_USUAL_SPLITS = ("train", "validation", "test")
_KEPT_FACTS = (
    "format",
    "rsc_version",
    "author",
    "holdout",
    "holdout_key",
    "records",
    "collected",
    "erased_from",
    ENDED,
)


def ended_root(root: Root, *, root_hash: str, report_sha256: str) -> Root:
    """The root that takes the place of `root`. That of an ended version is returned as it is."""
    if ENDED in root.facts:
        return root
    names = _split_names(list(root.splits))
    splits = {names[old]: split.model_copy(update={"fields": _coded(split.fields)})
              for old, split in root.splits.items()}  # fmt: skip
    facts = {name: root.facts[name] for name in _KEPT_FACTS if name in root.facts}
    changes = {
        "splits": splits,
        "report_sha256": report_sha256,
        "facts": {**facts, ENDED: {"root_hash": root_hash}},
    }
    return root.model_copy(update=changes)


def _split_names(names: list[str]) -> dict[str, str]:
    """Names of splits as they may stay: those that RSC gives, and codes for the source's own."""
    known = {*SIDECARS, *_USUAL_SPLITS}
    own = [name for name in names if name not in known]
    codes = {name: f"split-{number}" for number, name in enumerate(own, start=1)}
    return {name: codes.get(name, name) for name in names}


def _coded(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = [(field.kind, field.dtype) for field in Schema.from_dict(fields).fields]
    coded = [Field(f"field_{number}", kind, dtype) for number, (kind, dtype) in enumerate(kinds, start=1)]
    return Schema(tuple(coded)).to_dict()

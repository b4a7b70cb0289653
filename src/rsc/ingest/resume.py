"""An import that was interrupted goes on where it was; one that cannot go on leaves nothing.

Every `CHECKPOINT_BYTES` of source the writer makes what it has durable, together with the position:
which part comes next, and the totals so far (counts and record numbers, nothing of the records). The
same command finds the position again when source, settings and policy are the same to the byte, and
no record is stored twice, because whatever was written after the position is dropped.

The distance between checkpoints is counted in source bytes, not in time, so that an import that was
never interrupted has the same shards.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rsc import __version__
from rsc.config import Workspace
from rsc.errors import IntegrityError
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.readers.source import Fingerprint
from rsc.ingest.sink import Totals
from rsc.review.report import report_from_json
from rsc.store.bulk.locations import Location
from rsc.store.staging import Unfinished, list_unfinished

CHECKPOINT_BYTES = 256 << 20  # one full shard; at most this much is read twice after a kill
_FORMAT = "rsc-import-position-1"


@dataclass(frozen=True)
class Position:
    """Where an import stands: the parts before `next_part` are durable, and `totals` counts them."""

    import_id: str
    next_part: int
    done_bytes: int
    totals: Totals
    is_surveyed: bool = False

    def to_dict(self) -> dict[str, Any]:
        totals = self.totals
        return {
            "format": _FORMAT,
            "import_id": self.import_id,
            "next_part": self.next_part,
            "done_bytes": self.done_bytes,
            "samples": dict(totals.samples),
            "num_read": totals.num_read,
            "bad": dict(totals.bad),
            "bad_records": totals.bad_records,
            "notes": dict(totals.notes),
            "left_out": dict(totals.left_out),
            "first_record": totals.first_record,
            "is_surveyed": self.is_surveyed,
            "report": None if totals.report is None else totals.report.to_json().decode(),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Position | None:
        """None for a position that is not ours."""
        if record.get("format") != _FORMAT:
            return None
        report = record["report"]
        totals = Totals(
            samples=Counter(record["samples"]),
            num_read=record["num_read"],
            bad=Counter(record["bad"]),
            bad_records=list(record["bad_records"]),
            notes=Counter(record["notes"]),
            left_out=Counter(record.get("left_out", {})),
            first_record=record.get("first_record", 0),
            report=None if report is None else report_from_json(report.encode()),
        )
        is_surveyed = bool(record.get("is_surveyed"))
        return cls(record["import_id"], record["next_part"], record["done_bytes"], totals, is_surveyed)


def import_id(
    plan: ImportPlan,
    *,
    fingerprint: Fingerprint,
    policy: bytes,
    workspace: Workspace,
    base: str | None = None,
) -> str:
    """`<who>:<what>`: equal for two imports of one workspace that would store the same. `base` is the root of
    the version that is added to."""
    origin = (
        fingerprint.digest if fingerprint.num_files else secrets.token_hex()
    )  # memory cannot be found again
    settings = {
        "version": __version__,
        "source": origin,
        "kind": plan.source.kind,
        "options": plan.options.model_dump(mode="json"),
        "tokenizer": plan.tokenizer_json,
        "policy": hashlib.sha256(policy).hexdigest(),
        **({} if base is None else {"base": base}),
    }
    what = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{_who(workspace)}:{what}"


def _who(workspace: Workspace) -> str:
    """Tells workspaces apart that share a place for their data; only one writes into a folder of its own."""
    if workspace.bulk == workspace.data:
        return ""
    return hashlib.sha256(f"{platform.node()} {workspace.root}".encode()).hexdigest()[:16]


def find_interrupted(location: Location, *, name: str, wanted: str) -> tuple[Unfinished, Position] | None:
    """The unfinished import with this id. Other unfinished imports of the same workspace are removed.

    Call it under `only_writer`, which holds on one machine. In a folder of the workspace's own, what says
    nothing of where it stands is then nobody's, and removed too. In a place that workspaces share, what
    others have begun (an erasure, an import) is left alone.
    """
    found = None
    who = wanted.partition(":")[0]
    for unfinished in list_unfinished(location, name):
        position = _position(unfinished)
        if position is None and not who:
            unfinished.remove()
        if position is None or position.import_id.partition(":")[0] != who:
            continue
        if found is None and position.import_id == wanted and position.next_part > 0:
            found = unfinished, position
        else:
            unfinished.remove()
    return found


def _position(unfinished: Unfinished) -> Position | None:
    try:
        progress = unfinished.progress()
    except IntegrityError:
        return None
    return None if progress is None else Position.from_dict(progress.position)

"""What the log says should be so now: one replay of it, to be held against what lies in the workspace.

Not covered: a log that was cut back or begun anew together with everything that it told of (a witness
sees the first, audit/witness.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_COMES = ("import", "review_carried")  # kinds of records with which a version begins


@dataclass(frozen=True, slots=True)
class Said:
    """A value and the number of the record that says it."""

    index: int
    value: str


@dataclass
class Recorded:
    versions: dict[tuple[str, int], Said] = field(default_factory=dict)
    """(name, version) -> its root hash."""
    verdicts: dict[str, dict[str, Said]] = field(default_factory=lambda: defaultdict(dict))
    """Root hash -> approver -> `approve` or `reject`, the last one."""
    came_from: dict[str, str] = field(default_factory=dict)
    """Root hash of a version that lost records -> that of the one before."""
    destroyed: dict[tuple[str, str], Said] = field(default_factory=dict)
    """(provider, key id) of every key that was destroyed -> how."""
    promises: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a promise -> the last record of what became of it."""

    def line(self, root_hash: str) -> list[str]:
        """The root itself and those that it came from by removals, newest first."""
        roots = [root_hash]
        while roots[-1] in self.came_from:
            roots.append(self.came_from[roots[-1]])
        return roots

    def verdicts_on(self, root_hash: str) -> dict[str, Said]:
        """Those on the version itself and on what it came from; the nearer one counts."""
        found: dict[str, Said] = {}
        for root in reversed(self.line(root_hash)):
            found |= self.verdicts.get(root, {})
        return found


def replay(entries: Iterable[Mapping[str, Any]]) -> Recorded:
    recorded = Recorded()
    for entry in entries:
        kind, index = entry["kind"], entry["index"]
        if kind in _COMES:
            recorded.versions[entry["data"], entry["version"]] = Said(index, entry["root_hash"])
        if kind == "promise":
            recorded.promises[entry["promise"]] = entry
        elif kind == "review_carried":
            recorded.came_from[entry["root_hash"]] = entry["from_root_hash"]
        elif kind in ("approve", "reject"):
            recorded.verdicts[entry["root_hash"]][entry["approver"]] = Said(index, kind)
        elif kind in ("key_destroyed", "key_rotated"):
            place = _destroyed_key(kind, entry)
            if place is not None:
                recorded.destroyed[place] = Said(index, kind)
    return recorded


def _destroyed_key(
    kind: Literal["key_destroyed", "key_rotated"], entry: Mapping[str, Any]
) -> tuple[str, str] | None:
    """None for records of an older form, which do not say whose key it was."""
    provider = entry.get("provider" if kind == "key_destroyed" else "old_provider")
    return None if provider is None else (provider, entry["kek_id" if kind == "key_destroyed" else "old"])

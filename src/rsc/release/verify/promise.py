"""A promise and what became of it: the words of `rsc verify`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from rsc.clock import timestamp

State = Literal["kept", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that is not as promised."""

    what: str
    data: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """A row: what is promised, whether it holds, since when, and which data is concerned."""

    name: str
    state: State
    told: str
    """What was looked at, or the first breach and how many more there are."""
    since: datetime | None = None
    data: tuple[str, ...] = ()
    breaches: tuple[Breach, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "promise": self.name,
            "state": self.state,
            "since": timestamp(self.since) if self.since else None,
            "data": list(self.data),
            "told": self.told,
            "breaches": [breach.what for breach in self.breaches],
        }


def judge(name: str, breaches: list[Breach], *, told: str) -> Promise:
    """A row from what was found: kept when nothing was."""
    if not breaches:
        return Promise(name, "kept", told)
    more = f" (and {len(breaches) - 1} more)" if len(breaches) > 1 else ""
    known = [breach.since for breach in breaches if breach.since is not None]
    return Promise(
        name,
        "broken",
        breaches[0].what + more,
        since=min(known, default=None),
        data=tuple(sorted({breach.data for breach in breaches if breach.data})),
        breaches=tuple(breaches),
    )


def unknown(name: str, why: str) -> Promise:
    return Promise(name, "unknown", why)


def with_since(promise: Promise, since: datetime) -> Promise:
    return promise if promise.since else replace(promise, since=since)

"""Keys of data that no version is under any more, and whose time is over.

A rotation or an import that was stopped can leave one. Providers refuse a key after its end, so nothing can
come to lie under it while it is destroyed.

Not covered: such a key before its end; `rsc keys rotate` destroys those that a rotation left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rsc.audit.log import AuditLog
from rsc.clock import timestamp
from rsc.config import Workspace
from rsc.release.lifecycle.kek_index import Providers, active_keks
from rsc.store.dataset import Dataset, list_datasets

_PREFIX = "data/"


@dataclass(frozen=True, slots=True)
class UnusedKey:
    provider: str
    kek_id: str
    since: datetime

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "since": timestamp(self.since)}


def overdue_unused(workspace: Workspace, *, providers: Providers, now: datetime) -> list[UnusedKey]:
    """Keys of data that are there although their end is past; those of versions are told by `overdue`."""
    envelopes = [
        Dataset.open(workspace.bulk, name=name, version=number).envelope()
        for name, versions in list_datasets(workspace.bulk)
        for number in versions
    ]
    named = {(envelope.provider, envelope.kek_id) for envelope in envelopes}
    return [
        UnusedKey(*place, info.expires)
        for place, info in active_keks(providers).items()
        if info.kek_id.startswith(_PREFIX)
        and place not in named
        and info.expires is not None
        and info.expires <= now
    ]


def sweep_unused(
    workspace: Workspace, *, providers: Providers, audit: AuditLog, now: datetime, user: str
) -> list[UnusedKey]:
    """Destroy them. Raises what the provider raises."""
    late = overdue_unused(workspace, providers=providers, now=now)
    for key in late:
        destroyed = providers[key.provider].destroy(key.kek_id)
        audit.append(
            "key_destroyed",
            provider=key.provider,
            kek_id=key.kek_id,
            user=user,
            reason=f"past its end since {key.since:%Y-%m-%d}, and no version is under it",
            state=destroyed.state,
        )
    return late
